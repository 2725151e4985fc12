"""Many games at once, on integers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qsft.envs.wordle.rules import NO_FEEDBACK, SOLVED, TRIES, Lexicon


class WordleBatch:
    """G games of :class:`qsft.envs.wordle.Wordle` played side by side: word numbers in, feedback codes out.

    Args:
        lexicon: vocabulary and feedback rule.
        invalid_reward: reward of an invalid guess.

    Attributes:
        secrets: ``[G]`` word numbers.
        tries: ``[G]`` int64, guesses made so far.
        done: ``[G]`` bool.
    """

    def __init__(self, lexicon: Lexicon, invalid_reward: float = -1.0) -> None:
        self.lexicon = lexicon
        self.invalid_reward = invalid_reward
        self.reset(np.zeros(0, np.intp))

    def reset(self, secrets: NDArray[np.integer]) -> None:
        """Starts ``G = len(secrets)`` games, each with its secret's word number (0..N-1)."""
        self.secrets = np.asarray(secrets, np.intp)
        if self.secrets.size and not 0 <= self.secrets.min() <= self.secrets.max() < len(self.lexicon):
            raise ValueError(f"secrets must be word numbers 0..{len(self.lexicon) - 1}")
        self.tries = np.zeros(len(self.secrets), np.int64)
        self.done = np.zeros(len(self.secrets), bool)

    def step(self, guesses: NDArray[np.integer]) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.bool_]]:
        """One guess in every game.

        Args:
            guesses: ``[G]`` word numbers; any number outside 0..N-1 is an invalid guess. Ignored where a game is over.

        Returns:
            ``codes [G]`` (``NO_FEEDBACK`` where the guess was invalid or the game over before), ``rewards [G]`` (0
            where the game was over before), ``done [G]``.
        """
        guesses = np.asarray(guesses, np.intp)
        valid = (guesses >= 0) & (guesses < len(self.lexicon))
        codes = self.lexicon.table[np.where(valid, guesses, 0), self.secrets]
        codes[~valid | self.done] = NO_FEEDBACK
        solved = codes == SOLVED
        rewards = np.where(valid, -1.0, self.invalid_reward)
        rewards[solved | self.done] = 0.0
        self.tries += ~self.done
        self.done = self.done | solved | (self.tries == TRIES)
        return codes, rewards, self.done
