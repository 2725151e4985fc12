"""The board for the eye, in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import chess
from rich.text import Text

from qsft.envs.chess.texts import last_position

if TYPE_CHECKING:
    from qsft.data.trajectory import Trajectory

_LIGHT, _DARK = "on #d9c9a8", "on #a0805a"
_WHITE, _BLACK = "bold #ffffff", "#000000"


def board_text(history: Trajectory) -> Text:
    """The position after the last turn, White below: two columns a square, files and ranks at the edge."""
    board = last_position(history)
    text = Text()
    for rank in reversed(range(8)):
        text.append(f"{rank + 1} ", style="dim")
        for file in range(8):
            square = chess.square(file, rank)
            piece = board.piece_at(square)
            ground = _LIGHT if (file + rank) % 2 else _DARK
            # The filled shapes for both sides: on a coloured ground the hollow ones are hard to tell.
            shape = chess.UNICODE_PIECE_SYMBOLS[piece.symbol().lower()] if piece else " "
            colour = _WHITE if piece is None or piece.color == chess.WHITE else _BLACK
            text.append(f"{shape} ", style=f"{colour} {ground}")
        text.append("\n")
    text.append("  a b c d e f g h", style="dim")
    return text
