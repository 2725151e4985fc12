"""The texts of the game: what the environment says and how a guess is spelt."""

from __future__ import annotations

import string
from functools import cache

from qsft.envs.wordle.rules import LETTERS, NO_FEEDBACK, code_of, colours

FIRST_OBSERVATION = "Wordle:\n"
INVALID = "\n"
OBSERVATIONS = ("colours", "tiles")


def action_text(word: str) -> str:
    """``"crane" -> "c r a n e\\n"``."""
    return " ".join(word) + "\n"


def parse_action(text: str) -> str:
    """The word that an action spells, blanks removed; any text is allowed, so it need not be a word."""
    return text.replace(" ", "").strip()


@cache
def observation_text(word: str, code: int, observation: str) -> str:
    """What the environment answers to a valid guess: ``"g y b b b\\n"``, or as tiles ``"1cg 2ry 3ab 4nb 5eb\\n"``."""
    if observation == "colours":
        return " ".join(colours(code)) + "\n"
    tiles = (
        f"{place}{letter}{colour}" for place, (letter, colour) in enumerate(zip(word, colours(code), strict=True), 1)
    )
    return " ".join(tiles) + "\n"


def parse_observation(text: str) -> int:
    """The feedback code in an answer of either kind; ``NO_FEEDBACK`` for the answer to an invalid guess.

    Raises:
        ValueError: the text is neither.
    """
    if text == INVALID:
        return NO_FEEDBACK
    tokens = text.split()
    if len(tokens) != LETTERS:
        raise ValueError(f"{text!r:.80} is no answer of Wordle")
    return code_of("".join(token[-1] for token in tokens))


def symbols(observation: str = "colours", letters: bool = True) -> list[str]:
    """All symbols of the texts (blanks only separate them), for a word-level tokenizer.

    ``"Wordle:"``, ``"\\n"`` and the letters a-z, which in ``"colours"`` include g, y and b; with ``"tiles"`` also the
    390 tiles ``"1ab"`` ... ``"5zg"``. Without ``letters`` only those that the environment says.
    """
    found = ["Wordle:", "\n", *(string.ascii_lowercase if letters else "gyb" if observation == "colours" else "")]
    if observation == "tiles":
        found += [f"{i}{letter}{c}" for i in range(1, LETTERS + 1) for letter in string.ascii_lowercase for c in "byg"]
    return found
