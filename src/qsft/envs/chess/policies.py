"""Scripted players of White.

A game's player is made by ``begin`` and asked move by move; ``act`` keeps one for each history, so that a policy plays
the same turn by turn and in the generator.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import chess
import numpy as np

from qsft.envs.chess.engine import Candidate, Engine, EngineError
from qsft.envs.chess.env import Chess
from qsft.envs.chess.opponents import check_careless, random_move
from qsft.envs.chess.skill import LINES, LOWEST_ELO, check_elo, pick, search_depth, skill_level
from qsft.envs.chess.texts import action_text, last_position
from qsft.errors import ConfigError, UnansweredTurns

if TYPE_CHECKING:
    from qsft.data.trajectory import Trajectory

logger = logging.getLogger(__name__)

#: Plays one game: a position with at least one legal move -> the move.
Mover = Callable[[chess.Board], chess.Move]


class ChessPolicy(ABC):
    """A player that looks at nothing but the position.

    Args:
        environment: whose engine and time limit are used; its state is not.
    """

    name: str

    def __init__(self, environment: Chess) -> None:
        self._settings = environment.engine_settings
        self._engine: Engine | None = None
        self.seed(0)

    def seed(self, seed: int) -> None:
        """Restarts the random generator, and with it every game."""
        self.rng = np.random.default_rng(seed)
        self._games: dict[int, tuple[Trajectory, Mover]] = {}

    @abstractmethod
    def begin(self, rng: np.random.Generator) -> Mover:
        """The player of one game, which draws all that it draws from ``rng``."""

    def act(self, histories: Sequence[Trajectory]) -> list[str]:
        """One move a history, ``"N f 3\\n"``.

        A game is known by its trajectory being the same object as in the call before; any other begins a new one.

        Raises:
            DataError: a history that ends with no position.
            UnansweredTurns: the engine failed twice at some of them.
        """
        games = {}
        actions: list[str | None] = []
        errors: dict[int, Exception] = {}
        for history in histories:
            board = last_position(history)
            # The trajectory is held along with its player: while it is, no other can have its id.
            games[id(history)] = game = self._games.get(id(history)) or (history, self.begin(self._child()))
            # A finished position, which a game may be made to begin with, has no good answer.
            try:
                actions.append(action_text(board.san(game[1](board)) if any(board.legal_moves) else "--"))
            except EngineError as error:
                errors[len(actions)] = error
                actions.append(None)
        self._games = games
        if errors:
            raise UnansweredTurns(actions, errors)
        return [action for action in actions if action is not None]

    def _child(self) -> np.random.Generator:
        return np.random.default_rng(int(self.rng.integers(2**63)))

    def _engine_of_game(self) -> Engine:
        """The engine of the calling thread, kept running for its next game."""
        self._engine = self._settings.shared()
        return self._engine

    def _limited(self, elo: int, careless: float, rng: np.random.Generator) -> Mover:
        """Stockfish limited to ``elo``, a share ``careless`` of whose moves are random ones instead."""
        engine = self._engine_of_game()
        depth, level = search_depth(elo), skill_level(elo)

        def move(board: chess.Board) -> chess.Move:
            if careless and rng.random() < careless:
                return random_move(board, rng)
            return chess.Move.from_uci(pick(self._candidates(engine, board, depth, LINES), level, rng).move)

        return move

    def _candidates(self, engine: Engine, board: chess.Board, depth: int, lines: int) -> list[Candidate]:
        """As :meth:`Engine.candidates`; what a failing engine did not answer is asked once more, to the same effect."""
        fen = board.fen()
        try:
            return engine.candidates(fen, depth, lines)
        except EngineError as error:
            logger.warning("policy %s asks again: %s", self.name, error)
            return engine.candidates(fen, depth, lines)


class RandomPolicy(ChessPolicy):
    """A uniformly random legal move."""

    name = "random"

    def begin(self, rng: np.random.Generator) -> Mover:
        return lambda board: random_move(board, rng)


class StockfishPolicy(ChessPolicy):
    """Stockfish limited to an Elo, as :mod:`qsft.envs.chess.skill` plays it.

    Args:
        environment: to be played in.
        elo: 1350 to 2850.
        careless: with this probability a move is a uniformly random one instead.

    Raises:
        ConfigError: a value that is not allowed.
    """

    def __init__(self, environment: Chess, elo: int, careless: float = 0.0) -> None:
        super().__init__(environment)
        self.elo = check_elo(elo)
        self.careless = check_careless(careless)
        self.name = f"stockfish-{elo}" + (f"-careless-{careless:g}" if careless else "")

    def begin(self, rng: np.random.Generator) -> Mover:
        return self._limited(self.elo, self.careless, rng)


class Stockfish1350(StockfishPolicy):
    """:class:`StockfishPolicy` as weak as the opponent.

    Args:
        environment: to be played in.
        careless: as for :class:`StockfishPolicy`.
    """

    ELO: ClassVar[int] = 1350

    def __init__(self, environment: Chess, careless: float = 0.0) -> None:
        super().__init__(environment, self.ELO, careless)


class Stockfish1700(Stockfish1350):
    """The same at 1700."""

    ELO = 1700


class Stockfish2000(Stockfish1350):
    """The same at 2000."""

    ELO = 2000


class FullStockfish(ChessPolicy):
    """Stockfish's best move at a fixed depth: the ceiling to compare with.

    Args:
        environment: to be played in.
        depth: of the search, at least 1.

    Raises:
        ConfigError: a depth that is not allowed.
    """

    DEFAULT_DEPTH: ClassVar[int] = 10

    def __init__(self, environment: Chess, depth: int = DEFAULT_DEPTH) -> None:
        if isinstance(depth, bool) or not isinstance(depth, int) or depth < 1:
            raise ConfigError(f"chess: depth={depth!r} is not an integer of at least 1")
        super().__init__(environment)
        self.depth = depth
        self.name = "stockfish" if depth == self.DEFAULT_DEPTH else f"stockfish-depth-{depth}"

    def begin(self, rng: np.random.Generator) -> Mover:
        engine = self._engine_of_game()
        return lambda board: chess.Move.from_uci(self._candidates(engine, board, self.depth, 1)[0].move)


@dataclass(frozen=True, slots=True)
class Component:
    """A part of a mixture: with this weight a game is played by Stockfish of this Elo, so careless."""

    weight: float
    elo: int
    careless: float


class MixturePolicy(ChessPolicy):
    """The behaviour policy: each game has a player of its own, drawn from the environment's ``mixture``."""

    name = "mixture"

    def __init__(self, environment: Chess) -> None:
        super().__init__(environment)
        self._parts = [Component(*part) for part in environment.mixture]
        weights = np.array([part.weight for part in self._parts])
        self._probabilities = weights / weights.sum()

    def begin(self, rng: np.random.Generator) -> Mover:
        part = self._parts[int(rng.choice(len(self._parts), p=self._probabilities))]
        return self._limited(part.elo, part.careless, rng)


class CarelessPlayers(ChessPolicy):
    """A behaviour policy for careless opponents, whom :class:`MixturePolicy` nearly always beats.

    Each game has a player of its own: Stockfish at its weakest, with a share of random moves drawn evenly from 0 to
    ``MOST``.
    """

    name = "careless"
    MOST: ClassVar[float] = 0.9

    def begin(self, rng: np.random.Generator) -> Mover:
        return self._limited(LOWEST_ELO, float(rng.uniform(0, self.MOST)), rng)
