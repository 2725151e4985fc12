"""The texts of the game: positions as FEN or as a list of pieces, moves as SAN, blanks between the characters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import chess

from qsft.errors import DataError

if TYPE_CHECKING:
    from qsft.data.trajectory import Trajectory

_PIECES = "PNBRQKpnbrqk"
# In which a list of pieces names them. Symbols keep the order above: it numbers the tokens of tokenizers made here.
_ORDER = "KQRBNPkqrbnp"
_FILES = "abcdefgh"
_DIGITS = "0123456789"
#: Field separators of a FEN ("/" and "-"), the side to move, castling "O-O", captures, promotion, check and mate.
_SIGNS = "/-wOx=+#"

#: How an observation tells where the pieces are.
OBSERVATIONS = ("fen", "pieces")


def observation_text(fen: str, observation: str = "fen") -> str:
    """A position without a newline: a blank between all characters, so that a blank of the FEN becomes three.

    ``"8/8/... w - - 0 1" -> "8 / 8 / ...   w   -   -   0   1"``; with ``observation="pieces"`` the pieces and their
    squares stand first instead, White's before Black's, kings first: ``"Ke2 Qc6 kg3   w   -   -   0   1"``.
    """
    if observation == "fen":
        return " ".join(fen)
    placement, rest = fen.split(" ", 1)
    pieces = chess.BaseBoard(placement).piece_map()
    order = sorted(pieces, key=lambda square: (_ORDER.index(pieces[square].symbol()), chess.square_name(square)))
    words = [pieces[square].symbol() + chess.square_name(square) for square in order]
    return "   ".join([" ".join(words), " ".join(rest)])


def parse_observation(text: str) -> str:
    """The FEN that an observation spells, in either form: inverse of :func:`observation_text`.

    Raises:
        ValueError: the words of a list of pieces are no pieces on squares. (Of a FEN nothing is checked.)
    """
    words, _, rest = text.partition("   ")
    if not words or "/" in words:
        return text[::2]
    board = chess.BaseBoard(None)
    for word in words.split(" "):
        board.set_piece_at(chess.parse_square(word[1:]), chess.Piece.from_symbol(word[:1]))
    return f"{board.board_fen()} {rest[::2]}"


def action_text(move: str) -> str:
    """``"Nf3" -> "N f 3\\n"``."""
    return " ".join(move) + "\n"


def parse_action(text: str) -> str:
    """The move that an action spells, blanks removed; any text is allowed, so it need not be a move."""
    return text.replace(" ", "").strip()


def symbols(observation: str = "fen") -> list[str]:
    """All symbols of the texts (blanks only separate them), for a word-level tokenizer.

    A newline and 37 characters; where positions are lists of pieces, also each piece on each square.
    """
    characters = ["\n", *dict.fromkeys(_PIECES + _FILES + _DIGITS + _SIGNS)]
    if observation == "fen":
        return characters
    return characters + [piece + square for piece in _ORDER for square in chess.SQUARE_NAMES]


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


def legal_actions(history: Trajectory) -> list[str]:
    """All legal moves in the position that a history ends with, as actions in SAN.

    Raises:
        DataError: the last of the environment's texts is no position.
    """
    board = last_position(history)
    return [action_text(board.san(move)) for move in board.legal_moves]


def illegal_moves(history: Trajectory) -> int:
    """How many of the agent's turns were illegal moves: those that left the position as it was."""
    turns = history.turns
    return sum(
        before.text == after.text
        for before, turn, after in zip(turns, turns[1:], turns[2:], strict=False)
        if turn.is_agent
    )
