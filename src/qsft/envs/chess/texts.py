"""The texts of the game: positions as FEN and moves as SAN, each with a blank between all its characters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import chess

from qsft.errors import DataError

if TYPE_CHECKING:
    from qsft.data.trajectory import Trajectory

_PIECES = "PNBRQKpnbrqk"
_FILES = "abcdefgh"
_DIGITS = "0123456789"
#: Field separators of a FEN ("/" and "-"), the side to move, castling "O-O", captures, promotion, check and mate.
_SIGNS = "/-wOx=+#"


def observation_text(fen: str) -> str:
    """``"8/8/... w - - 0 1" -> "8 / 8 / ...   w   -   -   0   1"``, without a newline; a blank becomes three."""
    return " ".join(fen)


def parse_observation(text: str) -> str:
    """The FEN that an observation spells: inverse of :func:`observation_text` (nothing is checked)."""
    return text[::2]


def action_text(move: str) -> str:
    """``"Nf3" -> "N f 3\\n"``."""
    return " ".join(move) + "\n"


def parse_action(text: str) -> str:
    """The move that an action spells, blanks removed; any text is allowed, so it need not be a move."""
    return text.replace(" ", "").strip()


def symbols() -> list[str]:
    """All symbols of the texts (blanks only separate them), for a word-level tokenizer: newline and 37 characters."""
    return ["\n", *dict.fromkeys(_PIECES + _FILES + _DIGITS + _SIGNS)]


def last_position(history: Trajectory) -> chess.Board:
    """The position that the last of the environment's texts tells.

    Raises:
        DataError: it is no position.
    """
    text = next((turn.text for turn in reversed(history.turns) if not turn.is_agent), "")
    try:
        return chess.Board(parse_observation(text))
    except ValueError as error:
        raise DataError(f"chess: cannot read the position {text!r:.80}; give a history of this environment") from error


def illegal_moves(history: Trajectory) -> int:
    """How many of the agent's turns were illegal moves: those that left the position as it was."""
    turns = history.turns
    return sum(
        before.text == after.text
        for before, turn, after in zip(turns, turns[1:], turns[2:], strict=False)
        if turn.is_agent
    )
