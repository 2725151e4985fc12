"""Who plays Black."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from qsft.envs.chess.engine import Engine, EngineSettings
from qsft.envs.chess.skill import LOWEST_ELO, check_elo, weak_move
from qsft.errors import ConfigError

if TYPE_CHECKING:
    import chess
    import numpy as np

OPPONENTS = ("stockfish-depth1", "stockfish-elo", "random")


class Opponent(Protocol):
    """Chooses moves for the side to move."""

    def prepare(self) -> None:
        """Called at each reset: starts what has to run.

        Raises:
            ConfigError: the engine is missing.
        """

    def reply(self, board: chess.Board, rng: np.random.Generator) -> str:
        """A legal move (UCI) in a position that has one.

        Raises:
            EngineError: the engine died or hung.
        """

    def close(self) -> None:
        """Ends what runs, where nobody else needs it."""


def make_opponent(
    name: str, elo: int | None, seconds: float | None, careless: float, settings: EngineSettings
) -> Opponent:
    """The opponent of a name in ``OPPONENTS``.

    Args:
        elo, seconds: of ``"stockfish-elo"`` only; ``None`` for 1350 and the original's .1.
        careless: with this probability it plays a uniformly random move instead.

    Raises:
        ConfigError: unknown name, a value that is not allowed, or one that this opponent has no use for.
    """
    opponent = _careful(name, elo, seconds, settings)
    return Careless(opponent, careless) if check_careless(careless) else opponent


def check_careless(careless: object) -> float:
    """``careless`` itself.

    Raises:
        ConfigError: not a number from 0 to 1.
    """
    if isinstance(careless, bool) or not isinstance(careless, int | float) or not 0 <= careless <= 1:
        raise ConfigError(f"chess: careless={careless!r} is not a probability; give a number from 0 to 1")
    return careless


def _careful(name: str, elo: int | None, seconds: float | None, settings: EngineSettings) -> Opponent:
    if name == "stockfish-elo":
        if seconds is None:
            seconds = 0.1
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0.001 <= seconds <= 3600:
            raise ConfigError(f"chess: move_seconds={seconds!r:.60} is not a number from .001 to 3600")
        return LimitedStockfish(settings, LOWEST_ELO if elo is None else check_elo(elo), seconds)
    if name not in OPPONENTS:
        raise ConfigError(f"chess: opponent={name!r} is unknown; use one of {', '.join(OPPONENTS)}")
    if elo is not None or seconds is not None:
        raise ConfigError(f"chess: elo and move_seconds are for opponent 'stockfish-elo', not {name!r}; leave them out")
    return RandomMover() if name == "random" else SeededStockfish(settings)


class _StockfishOpponent:
    def __init__(self, settings: EngineSettings, **options: str | int) -> None:
        self.settings = settings
        self.options = options
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            self._engine = self.settings.shared(**self.options)
        return self._engine

    def prepare(self) -> None:
        self.engine.start()

    def close(self) -> None:
        self._engine = None


class SeededStockfish(_StockfishOpponent):
    """Stockfish at its weakest, as :mod:`qsft.envs.chess.skill` plays it: the same moves for the same seed."""

    def reply(self, board: chess.Board, rng: np.random.Generator) -> str:
        return weak_move(self.engine, board.fen(), LOWEST_ELO, rng)


class LimitedStockfish(_StockfishOpponent):
    """Stockfish's own limited strength: its moves are drawn from a generator that the clock seeds."""

    def __init__(self, settings: EngineSettings, elo: int, seconds: float) -> None:
        super().__init__(settings, UCI_LimitStrength="true", UCI_Elo=elo)
        self.seconds = seconds

    def reply(self, board: chess.Board, rng: np.random.Generator) -> str:
        return self.engine.best_move(board.fen(), self.seconds)


class RandomMover:
    """A uniformly random legal move; needs no engine."""

    def prepare(self) -> None:
        pass

    def reply(self, board: chess.Board, rng: np.random.Generator) -> str:
        return random_move(board, rng).uci()

    def close(self) -> None:
        pass


class Careless:
    """An opponent a share of whose moves are uniformly random ones.

    Args:
        opponent: who plays the others.
        share: probability of a random move, 0 to 1.
    """

    def __init__(self, opponent: Opponent, share: float) -> None:
        self.opponent = opponent
        self.share = share
        self.prepare = opponent.prepare
        self.close = opponent.close

    def reply(self, board: chess.Board, rng: np.random.Generator) -> str:
        if rng.random() < self.share:
            return random_move(board, rng).uci()
        return self.opponent.reply(board, rng)


def random_move(board: chess.Board, rng: np.random.Generator) -> chess.Move:
    """A uniformly random legal move."""
    moves = list(board.legal_moves)
    return moves[int(rng.integers(len(moves)))]
