"""Pictures and what they show, for a robot transformer that has not seen a task."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qsft.data.trajectory import AGENT_ROLE, Trajectory, Turn
from qsft.envs.manipulation.collect import ManipulationPlayer, in_symbols, shown
from qsft.envs.manipulation.env import Manipulation
from qsft.envs.manipulation.policies import NoisyPolicy

MOMENTS = 16


def moments(environment: Manipulation, count: int, seed: int = 0) -> Iterator[Trajectory]:
    """Up to ``MOMENTS`` moments of an episode of the noisy player: a picture, then the state's symbols, as the agent's turn.

    They hold how to see, and nothing of how a task is done: no action is told, nor what came of it (every reward is 0).

    Args:
        environment: with ``observation="picture"``; its task's stages are where the moments are from.
        count: how many episodes.
        seed: the first n are the same however many are asked for.
    """
    told, pictures, rng = in_symbols(environment), environment.pictures, np.random.default_rng(seed)
    player = ManipulationPlayer(told, NoisyPolicy(told))
    for number in range(count):
        if number % player.size == 0:
            games = player.play(seed, number // player.size)
        game = games[number % player.size]
        states, texts = game.metadata["states"], [turn.text for turn in game.turns if not turn.is_agent]
        chosen = sorted(rng.choice(len(states), min(MOMENTS, len(states)), replace=False))
        turns = []
        for step, images in zip(chosen, shown(pictures, [states[step] for step in chosen]), strict=True):
            turns += [Turn("user", "\n", images=images), Turn(AGENT_ROLE, texts[step], 0.0)]
        yield Trajectory(turns, "terminated")
