"""Scripted players of Wordle.

One piece of code decides (``choose``, on arrays); ``act`` reads histories into arrays and spells the answer, so a
policy plays the same over texts and in the fast generator.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from qsft.envs.wordle.env import Wordle
from qsft.envs.wordle.rules import CODES, NO_FEEDBACK, Lexicon
from qsft.envs.wordle.texts import action_text, parse_action, parse_observation
from qsft.errors import ConfigError, DataError

if TYPE_CHECKING:
    from qsft.data.trajectory import Trajectory

Consistent = NDArray[np.bool_]


class WordlePolicy(ABC):
    """A player that looks at nothing but which words fit what was said so far.

    Args:
        environment: the game to be played; its vocabulary and feedback rule are used, its state is not.
    """

    name: str

    def __init__(self, environment: Wordle) -> None:
        self.lexicon: Lexicon = environment.lexicon
        self.seed(0)

    def seed(self, seed: int) -> None:
        """Restarts the random generator."""
        self.rng = np.random.default_rng(seed)

    @abstractmethod
    def choose(self, consistent: Consistent) -> NDArray[np.intp]:
        """``consistent [G, N]``: the words that fit, at least one in each game -> guesses ``[G]``, word numbers."""

    def act(self, histories: Sequence[Trajectory]) -> list[str]:
        """One guess a history, ``"c r a n e\\n"``.

        Raises:
            DataError: a history that is no game of Wordle with this vocabulary and feedback rule.
        """
        consistent = self.lexicon.everything(len(histories))
        for game, history in enumerate(histories):
            guesses, codes = self._read(history)
            for guess, code in zip(guesses, codes, strict=True):
                consistent[game] &= self.lexicon.table[guess] == code
        if len(histories) and not consistent.any(1).all():
            raise DataError(
                "wordle: no word fits a history's feedback; give the policy the environment's words and feedback rule"
            )
        return [action_text(self.lexicon.words[guess]) for guess in self.choose(consistent).tolist()]

    def _read(self, history: Trajectory) -> tuple[list[int], list[int]]:
        """Valid guesses of a history and their feedback codes."""
        guesses, codes = [], []
        for turn, answer in zip(history.turns, history.turns[1:], strict=False):
            if not turn.is_agent:
                continue
            try:
                code = parse_observation(answer.text)
                if code != NO_FEEDBACK:
                    guesses.append(self.lexicon.index[parse_action(turn.text)])
                    codes.append(code)
            except (KeyError, ValueError) as error:
                raise DataError(
                    f"wordle: cannot read the turn {turn.text!r:.60} -> {answer.text!r:.60} with this vocabulary"
                ) from error
        return guesses, codes


class RandomPolicy(WordlePolicy):
    """A uniformly random word of the vocabulary."""

    name = "random"

    def choose(self, consistent: Consistent) -> NDArray[np.intp]:
        return self.rng.integers(consistent.shape[1], size=len(consistent))


class RandomConsistentPolicy(WordlePolicy):
    """A uniformly random word among those that fit."""

    name = "random-consistent"

    def choose(self, consistent: Consistent) -> NDArray[np.intp]:
        counts = consistent.sum(1)
        found = np.flatnonzero(consistent)  # the fitting words of the first game, of the second, ...
        first = np.cumsum(counts) - counts
        return found[first + self.rng.integers(counts)] % consistent.shape[1]


class MixturePolicy(RandomConsistentPolicy):
    """With probability ``q`` a uniformly random word among those that fit, else one of the whole vocabulary.

    The behaviour policy of LMRL-Gym's data. The default ``q`` gives our list the data mean of the paper, -4.12.
    """

    DEFAULT_Q: ClassVar[float] = 0.33

    def __init__(self, environment: Wordle, q: float = DEFAULT_Q) -> None:
        if isinstance(q, bool) or not isinstance(q, int | float) or not 0 <= q <= 1:
            raise ConfigError(f"policy 'mixture': q={q!r} is not a probability; give a number from 0 to 1")
        super().__init__(environment)
        self.q = q
        self.name = "mixture" if q == self.DEFAULT_Q else f"mixture-{q:g}"

    def choose(self, consistent: Consistent) -> NDArray[np.intp]:
        fitting = self.rng.random(len(consistent)) < self.q
        return np.where(
            fitting, super().choose(consistent), self.rng.integers(consistent.shape[1], size=len(consistent))
        )


class GreedyInformationPolicy(WordlePolicy):
    """The guess whose feedback tells most, in expectation over the words that fit (entropy of the feedback).

    Among equals a word that fits comes first, then the one that stands first in the vocabulary. Guesses are remembered
    by state of knowledge, so a thousand games cost little more than the few hundred states they pass through.
    """

    name = "greedy-information"

    def __init__(self, environment: Wordle) -> None:
        super().__init__(environment)
        self._guesses: dict[bytes, int] = {}

    def choose(self, consistent: Consistent) -> NDArray[np.intp]:
        states = np.packbits(consistent, axis=1)
        chosen = np.empty(len(consistent), np.intp)
        for game, state in enumerate(states):
            key = state.tobytes()
            if key not in self._guesses:
                self._guesses[key] = self._best(consistent[game])
            chosen[game] = self._guesses[key]
        return chosen

    def _best(self, consistent: Consistent) -> int:
        n = len(consistent)
        answers = self.lexicon.table[:, consistent].astype(np.int64)  # [guess, fitting secret]
        counts = np.bincount((answers + CODES * np.arange(n)[:, None]).ravel(), minlength=n * CODES).reshape(n, CODES)
        # log2(m) - sum(c log2 c) / m is the entropy; m is the same for all guesses.
        sizes = np.arange(answers.shape[1] + 1)
        cost = (sizes * np.log2(np.maximum(sizes, 1)))[counts].sum(1)
        ties = cost <= cost.min() + 1e-9
        return int(np.argmax(ties & consistent)) if (ties & consistent).any() else int(np.argmax(ties))
