"""A small game and two players, so that no test of the evaluation needs a real environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qsft.data.trajectory import Trajectory
from qsft.envs.base import Environment
from qsft.evaluation import ResultRow


class Guess(Environment):
    """Guess a number from 1 to 6: -1 a wrong guess, 0 the right one. After four guesses the game is truncated."""

    name = "guess"
    reset_options = ("secret",)
    return_range = (-4.0, 0.0)
    max_turns = 4

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self.secret = int(self.np_random.integers(1, 7))
        self.turns = 0
        return "guess\n", {"secret": self.secret}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.turns += 1
        solved = int(action) == self.secret
        truncated = not solved and self.turns == self.max_turns
        info = {"success": solved, "secret": self.secret} if solved or truncated else {}
        return "yes\n" if solved else "no\n", 0.0 if solved else -1.0, solved, truncated, info


class Counting:
    """Guesses 1, 2, 3, ...: depends on the history alone. Remembers how it was asked."""

    name = "counting"

    def __init__(self, first: int = 1) -> None:
        self.first = first
        self.asked: list[int] = []
        self.seeds: list[int] = []
        self.seen: list[dict[str, Any]] = []

    def act(self, histories: Sequence[Trajectory]) -> list[str]:
        self.asked.append(len(histories))
        self.seen += [dict(history.metadata) for history in histories]
        return [str(self.first + sum(turn.is_agent for turn in history.turns)) for history in histories]

    def seed(self, seed: int) -> None:
        self.seeds.append(seed)


class Dice:
    """Guesses at random."""

    name = "dice"

    def act(self, histories: Sequence[Trajectory]) -> list[str]:
        return [str(number) for number in self.rng.integers(1, 7, len(histories))]

    def seed(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)


def row(**changes: Any) -> ResultRow:
    """A valid result row, with some fields changed."""
    values: dict[str, Any] = {
        "env": "wordle",
        "method": "qsft",
        "seed": 0,
        "episodes": 100,
        "return_mean": -2.0,
        "return_ci95": (-2.2, -1.8),
        "success_rate": 0.9,
        "success_ci95": (0.8256, 0.9448),
        "config": {"beta": 64},
        "command": "qsft evaluate run",
        "date": "2026-01-31T12:00:00+00:00",
        "seconds": 12.5,
    }
    return ResultRow(**{**values, **changes})
