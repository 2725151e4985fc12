"""How Stockfish plays below its strength, with a generator of random numbers that can be seeded.

Stockfish limited to an Elo searches to a depth that grows with it and then picks, at random, among its four best moves.
Its generator is seeded by the clock; here the four moves are asked for and the pick is made by the same rule outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qsft.envs.chess.engine import Candidate, Engine
from qsft.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

#: The range that Stockfish 15.1 knows; it silently plays the nearer end for what lies beyond.
LOWEST_ELO, HIGHEST_ELO = 1350, 2850
#: How many of the best moves it picks among.
LINES = 4
#: The engine's own value of a pawn in the middle game, in the centipawns that it prints.
_PAWN = 34.9


def check_elo(elo: object, name: str = "elo") -> int:
    """``elo`` itself.

    Raises:
        ConfigError: not an integer from 1350 to 2850.
    """
    if isinstance(elo, bool) or not isinstance(elo, int) or not LOWEST_ELO <= elo <= HIGHEST_ELO:
        raise ConfigError(f"chess: {name}={elo!r} is not an integer from {LOWEST_ELO} to {HIGHEST_ELO}")
    return elo


def skill_level(elo: int) -> float:
    """The skill level, 0 to 20, that Stockfish 15.1 takes for an Elo."""
    return min(20.0, ((elo - 1346.6) / 143.4) ** (1 / 0.806))


def search_depth(elo: int) -> int:
    """The depth at which it picks: 1 for the weakest."""
    return 1 + int(skill_level(elo))


def pick(candidates: Sequence[Candidate], level: float, rng: np.random.Generator) -> Candidate:
    """The move that an engine of a skill level plays.

    With ``w = 120 - 2 level``: of what a move falls short of the best, ``w / 128`` is forgiven; and it is granted a
    random part, below ``w / 128``, of the span between the best and the last of the candidates (of a pawn, where the
    span is more). The highest sum is played. At level 0 that is nearly a draw of lots among the four, unless one of
    them gives or avoids mate, or they differ by some pawns.

    Args:
        candidates: best first.
        level: 0 to 20.
        rng: one number a candidate is drawn from it.
    """
    weakness = 120 - 2 * level
    best = candidates[0].score
    span = min(best - candidates[-1].score, _PAWN)
    luck = rng.integers(int(weakness), size=len(candidates))
    sums = [
        move.score + (weakness * (best - move.score) + span * float(u)) / 128
        for move, u in zip(candidates, luck, strict=True)
    ]
    # Of equal sums the later one, as the engine does.
    return candidates[max(range(len(sums)), key=lambda i: (sums[i], i))]


def weak_move(engine: Engine, fen: str, elo: int, rng: np.random.Generator) -> str:
    """The move (UCI) of Stockfish limited to ``elo`` in a position with at least one legal move."""
    return pick(engine.candidates(fen, search_depth(elo), LINES), skill_level(elo), rng).move
