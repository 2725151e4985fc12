"""Endgames: a lone black king against queens and rooks."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import ClassVar

import chess
import numpy as np

from qsft.envs.chess.env import Chess
from qsft.errors import ConfigError

#: Pieces on the board, White's in capitals.
SETUPS = ("kQK", "kRK", "kQRK", "kRRK")
HELD_OUT = 645
POSITIONS = ("training", "held-out")


class Endgames(Chess):
    """:class:`Chess` from random positions of kQK, kRK, kQRK and kRRK, White to move.

    Args:
        positions: ``"training"``: any legal position but the 645 that are held out, the four setups alike.
            ``"held-out"``: one of those 645, to evaluate with.
        opponent, elo, move_seconds, max_moves, engine, engine_timeout, observation, careless: as for :class:`Chess`.
    """

    name: str = "endgames"
    mixture: ClassVar[tuple[tuple[float, int, float], ...]] = (
        (5, 1350, 0.3),
        (5, 1350, 0.0),
        (4, 1500, 0.0),
        (4, 1700, 0.0),
        (4, 2000, 0.0),
    )

    def __init__(
        self,
        positions: str = "training",
        opponent: str = "stockfish-depth1",
        elo: int | None = None,
        move_seconds: float | None = None,
        max_moves: int = 400,
        engine: str | None = None,
        engine_timeout: float = 30.0,
        observation: str = "fen",
        careless: float = 0.0,
    ) -> None:
        if positions not in POSITIONS:
            raise ConfigError(f"endgames: positions={positions!r} is unknown; use one of {', '.join(POSITIONS)}")
        super().__init__(opponent, elo, move_seconds, max_moves, engine, engine_timeout, observation, careless)
        self.positions = positions

    def _first_position(self) -> str:
        if self.positions == "held-out":
            held_out = held_out_positions()
            return held_out[int(self.np_random.integers(len(held_out)))]
        return training_position(self.np_random)


def random_position(rng: np.random.Generator) -> str:
    """FEN of a setup drawn evenly among the four, on squares drawn evenly among the legal ways to place it."""
    pieces = [chess.Piece.from_symbol(symbol) for symbol in SETUPS[int(rng.integers(len(SETUPS)))]]
    while True:
        board = chess.Board(None)
        for square, piece in zip(rng.choice(64, size=len(pieces), replace=False).tolist(), pieces, strict=True):
            board.set_piece_at(square, piece)
        if board.is_valid() and not board.is_check():
            return board.fen()


def training_position(rng: np.random.Generator) -> str:
    """A :func:`random_position` that is not held out."""
    while True:
        fen = random_position(rng)
        if fen not in _held_out_set():
            return fen


def draw_held_out(seed: int = 0) -> list[str]:
    """Draws the held-out positions anew: 645 different ones. ``held_out.txt`` holds those of seed 0."""
    rng = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < HELD_OUT:
        found[random_position(rng)] = None
    return list(found)


@cache
def held_out_positions() -> tuple[str, ...]:
    """The 645 held-out positions, as FEN. No game of the training positions starts from one of them."""
    text = resources.files("qsft.envs.chess").joinpath("held_out.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


@cache
def _held_out_set() -> frozenset[str]:
    return frozenset(held_out_positions())
