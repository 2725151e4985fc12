"""Feedback and knowledge, on integers: words are indices into a vocabulary, feedback is a code 0..242.

A code is the five colours read as a number of base 3, first letter first: b(lack) = 0, y(ellow) = 1, g(reen) = 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from qsft.errors import ConfigError

LETTERS = 5
TRIES = 6
CODES = 3**LETTERS
SOLVED = CODES - 1
#: In place of a code: the guess was no word of the vocabulary, or the game was over.
NO_FEEDBACK = 255
FEEDBACK_RULES = ("lax", "strict")
_COLOURS = "byg"
_PLACES = 3 ** np.arange(LETTERS - 1, -1, -1)


def colours(code: int) -> str:
    """``242 -> "ggggg"``."""
    return "".join(_COLOURS[code // place % 3] for place in _PLACES.tolist())


def code_of(colours: str) -> int:
    """``"ggggg" -> 242``; the inverse of :func:`colours`."""
    return sum(_COLOURS.index(colour) * place for colour, place in zip(colours, _PLACES.tolist(), strict=True))


def feedback_table(words: Sequence[str], rule: str = "lax") -> NDArray[np.uint8]:
    """The code of every guess against every secret.

    Args:
        words: N words of five letters a-z.
        rule: ``"lax"`` (LMRL-Gym): green where the letter is right, else yellow where it occurs anywhere in the
            secret, else black. ``"strict"`` (the newspaper's game): a letter is coloured at most as often as the
            secret holds it, greens first, then from the left.

    Returns:
        ``[N guesses, N secrets]`` codes.

    Raises:
        ConfigError: unknown rule.
    """
    if rule not in FEEDBACK_RULES:
        raise ConfigError(f"wordle: feedback={rule!r} is unknown; use one of {', '.join(FEEDBACK_RULES)}")
    secrets = letter_array(words)
    table = np.empty((len(words), len(words)), np.uint8)
    rows = max(1, 2_000_000 // len(words))  # bounds the temporaries below to some 50 MB for any list
    for start in range(0, len(words), rows):
        guesses = secrets[start : start + rows]
        same = (
            guesses[:, None, :, None] == secrets[None, :, None, :]
        )  # [guess, secret, place in guess, place in secret]
        green = same[:, :, range(LETTERS), range(LETTERS)]
        if rule == "strict":
            yellow = _strict_yellow(guesses, same, green)
        else:
            yellow = same.any(-1) & ~green
        table[start : start + rows] = (2 * green + yellow) @ _PLACES
    return table


def _strict_yellow(guesses: NDArray[np.uint8], same: NDArray[np.bool_], green: NDArray[np.bool_]) -> NDArray[np.bool_]:
    yellow = np.zeros_like(green)
    for place in range(LETTERS):
        left_in_secret = (same[:, :, place] & ~green).sum(-1)
        earlier = guesses[:, None, :place] == guesses[:, None, place, None]
        used = (earlier & ~green[:, :, :place]).sum(-1)
        yellow[:, :, place] = ~green[:, :, place] & (used < left_in_secret)
    return yellow


def letter_array(words: Sequence[str]) -> NDArray[np.uint8]:
    """``[N, 5]`` ASCII codes of the letters."""
    return np.frombuffer("".join(words).encode("ascii"), np.uint8).reshape(-1, LETTERS)


@dataclass(frozen=True, eq=False)
class Lexicon:
    """A vocabulary under a feedback rule.

    Attributes:
        words: the N words.
        index: word -> its number.
        table: ``[N guesses, N secrets]`` uint8 feedback codes.
    """

    words: tuple[str, ...]
    index: dict[str, int]
    table: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.words)

    def everything(self, games: int) -> NDArray[np.bool_]:
        """``[games, N]``: the words that fit before the first guess, which is all of them."""
        return np.ones((games, len(self)), bool)

    def narrow(self, consistent: NDArray[np.bool_], guesses: NDArray[np.intp], codes: NDArray[np.uint8]) -> None:
        """Strikes out, in place, the words that do not fit each game's last feedback.

        Args:
            consistent: ``[games, N]``, the words that fitted before.
            guesses: ``[games]`` indices; any value where the code is ``NO_FEEDBACK``.
            codes: ``[games]``; ``NO_FEEDBACK`` strikes out nothing.
        """
        told = codes != NO_FEEDBACK
        if told.all():
            consistent &= self.table[guesses] == codes[:, None]
        else:
            consistent[told] &= self.table[guesses[told]] == codes[told, None]


@lru_cache(maxsize=8)
def lexicon(words: tuple[str, ...], feedback: str = "lax") -> Lexicon:
    """The :class:`Lexicon` of a vocabulary, made once for all environments that share it."""
    return Lexicon(words, {word: i for i, word in enumerate(words)}, feedback_table(words, feedback))
