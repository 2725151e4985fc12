"""Chess as an environment: text in, text out."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import TYPE_CHECKING, Any, ClassVar

import chess
import gymnasium

from qsft.data.trajectory import Trajectory
from qsft.envs.base import BlockPlayer, Environment, EpisodeError
from qsft.envs.chess.engine import EngineError, EngineSettings
from qsft.envs.chess.opponents import make_opponent
from qsft.envs.chess.texts import (
    OBSERVATIONS,
    action_text,
    illegal_moves,
    legal_actions,
    observation_text,
    parse_action,
    symbols,
)
from qsft.errors import ConfigError

if TYPE_CHECKING:
    from rich.text import Text

    from qsft.data.trajectory import Trajectory
    from qsft.policies.base import Policy

_CHARACTERS = "".join(symbols()) + " "


class Chess(Environment):
    """A game of chess as White against Stockfish; rules and texts of LMRL-Gym (its README tells the differences).

    The environment shows the position as FEN with a blank between all characters and no newline; a move is SAN, its
    characters with blanks between them and a newline, ``"N f 3\\n"``. Giving mate earns 1, being mated -1, all else 0.
    What is no legal move earns -1, leaves the position as it was, and Black does not move. The game is over
    (``terminated``) at mate, stalemate, with too little material to mate, at the fifth repetition and after 75 moves of
    each side without capture or pawn move; it is ``truncated`` by the turn after ``max_moves``.

    ``info`` holds ``legal``, whether the action was a legal move; at the end also ``success`` (White gave mate),
    ``fen`` (the first position) and ``replies`` (all of Black's moves as UCI).

    Args:
        opponent: ``"stockfish-depth1"``, Stockfish at its weakest (1350) with seeded luck, see
            :mod:`qsft.envs.chess.skill`; ``"stockfish-elo"``, Stockfish limited to ``elo`` by itself, whose moves no
            seed fixes; ``"random"``, random moves, which needs no engine.
        elo: strength of ``"stockfish-elo"``, 1350 (the default) to 2850.
        move_seconds: thinking time of ``"stockfish-elo"``; the default is the original's, .1.
        max_moves: agent turns that do not end the game.
        engine: path of Stockfish; ``None``: ``$QSFT_STOCKFISH``, else ``stockfish`` on the PATH, else Debian's.
        engine_timeout: seconds after which an engine that does not answer is given up.
        observation: ``"fen"``, the original's; ``"pieces"``: in place of the FEN's board a list of pieces, ``"Ke2 Qc6
            kg3"``, which small models read more easily.
        careless: share of the opponent's moves that are uniformly random ones instead, 0 to 1.

    Raises:
        ConfigError: a value that is not allowed. A missing engine is an error of ``reset``, where it is needed first.
    """

    name: str = "chess"
    policies: ClassVar[dict[str, str]] = {
        "random": "qsft.envs.chess.policies:RandomPolicy",
        "mixture": "qsft.envs.chess.policies:MixturePolicy",
        "careless": "qsft.envs.chess.policies:CarelessPlayers",
        "stockfish-1350": "qsft.envs.chess.policies:Stockfish1350",
        "stockfish-1700": "qsft.envs.chess.policies:Stockfish1700",
        "stockfish-2000": "qsft.envs.chess.policies:Stockfish2000",
        "stockfish": "qsft.envs.chess.policies:FullStockfish",
    }
    reset_options = ("fen", "replies")
    legal_actions = staticmethod(legal_actions)
    #: Of the policy ``mixture``: (weight, Elo, share of random moves) of the players that make the data.
    mixture: ClassVar[tuple[tuple[float, int, float], ...]] = (
        (1, 1350, 0.2),
        (1, 1350, 0.1),
        (2, 1350, 0.0),
        (2, 1500, 0.0),
        (2, 1700, 0.0),
        (2, 2000, 0.0),
    )

    def __init__(
        self,
        opponent: str = "stockfish-depth1",
        elo: int | None = None,
        move_seconds: float | None = None,
        max_moves: int = 400,
        engine: str | None = None,
        engine_timeout: float = 30.0,
        observation: str = "fen",
        careless: float = 0.0,
    ) -> None:
        if observation not in OBSERVATIONS:
            raise ConfigError(
                f"{self.name}: observation={observation!r} is unknown; use one of {', '.join(OBSERVATIONS)}"
            )
        if isinstance(max_moves, bool) or not isinstance(max_moves, int) or max_moves < 1:
            raise ConfigError(f"{self.name}: max_moves={max_moves!r} is not an integer of at least 1")
        self.engine_settings = EngineSettings(engine, engine_timeout)
        self._opponent_options = (opponent, elo, move_seconds, careless, self.engine_settings)
        self._opponent = make_opponent(*self._opponent_options)
        self.repeatable = opponent != "stockfish-elo"
        self.observation = observation
        self.max_moves = max_moves
        self.max_turns = max_moves + 1
        # All turns illegal; or all but the last, which lets White be mated.
        self.return_range = (-float(self.max_turns), 1.0)
        # What is said in earnest; step() takes any other text too, as an illegal move.
        self.action_space = gymnasium.spaces.Text(max_length=20, charset=_CHARACTERS)
        self.observation_space = gymnasium.spaces.Text(max_length=200, charset=_CHARACTERS)

    @classmethod
    def counts(cls, episode: Trajectory) -> Mapping[str, float]:
        return {"illegal_moves": illegal_moves(episode)}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Starts a game.

        Args:
            seed: of what is drawn: the first position where it is, and Black's moves.
            options: ``fen``: the first position, White to move; it must be possible, or with ``replies`` only have one
                king a side and Black not in check. ``replies``: Black's moves as UCI, played in order; when they are
                used up, the opponent goes on.

        Raises:
            ConfigError: unknown option, a FEN that is no possible position, replies that are no moves, no engine.
        """
        given = self.pins(options)
        fen, replies = given.get("fen"), given.get("replies")
        board = None if fen is None else _board(self.name, fen, recorded=replies is not None)
        pinned = [] if replies is None else _checked_replies(self.name, replies)
        if replies is None:
            self._opponent.prepare()
        super().reset(seed=seed, options=options)
        self._board = chess.Board(self._first_position()) if board is None else board
        self._first = self._board.fen() if fen is None else fen
        self._pinned = pinned
        self._replies: list[str] = []
        self._turns = 0
        return self._observation(), {"legal": True}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """One move of White, and Black's answer.

        Raises:
            EpisodeError: the game is over or was never started, ``action`` is not a ``str``, or a pinned reply is not
                legal where it should be played.
            EngineError: the engine died or hung; the game is over.
        """
        self.check_step(action)
        board = self._board
        self._turns += 1
        legal = self._push(action)
        reward = 0.0 if legal else -1.0
        outcome = board.outcome() if legal else None
        if legal and outcome is None:
            self._playing = False  # for the case that the opponent fails
            self._answer()
            self._playing = True
            outcome = board.outcome()
        if outcome is not None and outcome.winner is not None:
            reward = 1.0 if outcome.winner == chess.WHITE else -1.0
        truncated = outcome is None and self._turns > self.max_moves
        self._playing = outcome is None and not truncated
        info: dict[str, Any] = {"legal": legal}
        if not self._playing:
            success = outcome is not None and outcome.winner == chess.WHITE
            info.update(success=success, fen=self._first, replies=list(self._replies))
        return self._observation(), reward, outcome is not None, truncated, info

    def close(self) -> None:
        """Gives the engine back; its process ends when no other environment or policy uses it."""
        self._opponent.close()

    def twin(self) -> Chess:
        """Another environment with the same options, and nothing of this one's game."""
        other = copy(self)
        other._opponent = make_opponent(*self._opponent_options)
        other._np_random = None
        other._playing = False
        return other

    @property
    def position(self) -> chess.Board:
        """The position of the game, as the observation tells it; not to be changed."""
        return self._board

    def symbols(self, whole_actions: bool = False) -> list[str]:
        """A newline, the characters of FEN and SAN, and what the observations hold besides; blanks only separate them.

        Raises:
            ConfigError: ``whole_actions``: moves have too many spellings to be a symbol each.
        """
        if whole_actions:
            raise ConfigError(f"{self.name}: moves have thousands of spellings; spell them (leave whole_actions out)")
        return symbols(self.observation)

    def typed_action(self, text: str) -> str:
        return action_text(parse_action(text))

    def picture(self, history: Trajectory) -> Text:
        from qsft.envs.chess.render import board_text

        return board_text(history)

    def block_player(self, policy: Policy) -> BlockPlayer | None:
        from qsft.envs.chess.collect import ChessPlayer
        from qsft.envs.chess.policies import ChessPolicy

        return ChessPlayer(self, policy) if isinstance(policy, ChessPolicy) else None

    def _first_position(self) -> str:
        return chess.STARTING_FEN

    def _observation(self) -> str:
        return observation_text(self._board.fen(), self.observation)

    def _push(self, action: str) -> bool:
        """Plays White's move if it is one."""
        try:
            move = self._board.parse_san(parse_action(action))
        except ValueError:
            return False
        if not move:  # "--" and its like: a null move
            return False
        self._board.push(move)
        return True

    def _answer(self) -> None:
        """Plays Black's move."""
        number = len(self._replies)
        if number < len(self._pinned):
            reply = self._pinned[number]
            try:
                self._board.push(self._board.parse_uci(reply))
            except ValueError as error:
                raise EpisodeError(
                    f"{self.name}: reset option replies: move {number + 1}, {reply!r}, is not legal in "
                    f"{self._board.fen()}; White must play as in the recorded game"
                ) from error
        else:
            reply = self._opponent.reply(self._board, self.np_random)
            try:
                self._board.push_uci(reply)
            except ValueError as error:
                raise EngineError(
                    f"{self.engine_settings.find()} answered {reply!r:.20}, which is not legal in {self._board.fen()}"
                ) from error
        self._replies.append(reply)


#: What the rules cannot go on without.
_NEEDED = (
    chess.STATUS_NO_WHITE_KING | chess.STATUS_NO_BLACK_KING | chess.STATUS_TOO_MANY_KINGS | chess.STATUS_OPPOSITE_CHECK
)


def _board(name: str, fen: Any, recorded: bool) -> chess.Board:
    """The position of a reset option. ``recorded``: Black's moves are known, so that no engine has to cope with it.

    Raises:
        ConfigError: none that can come up with White to move; of a recorded game, none that the rules can go on from.
    """
    if not isinstance(fen, str):
        raise ConfigError(f"{name}: reset option fen: a {type(fen).__name__}; give a FEN as text")
    try:
        board = chess.Board(fen)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{name}: reset option fen: {fen!r:.100} is no FEN ({reason:.100}); correct it") from error
    if board.turn != chess.WHITE:
        raise ConfigError(f"{name}: reset option fen: {fen!r:.100} has Black to move; the agent plays White")
    wrong = board.status() & _NEEDED if recorded else board.status()
    if wrong:
        reason = ", ".join(str(flag.name).lower().replace("_", " ") for flag in chess.Status if flag & wrong)
        raise ConfigError(f"{name}: reset option fen: {fen!r:.100} is an impossible position ({reason}); correct it")
    return board


def _checked_replies(name: str, replies: Any) -> list[str]:
    if isinstance(replies, str) or not isinstance(replies, list | tuple):
        raise ConfigError(f"{name}: reset option replies: {replies!r:.60} is no list; give moves such as ['e7e5']")
    for row, reply in enumerate(replies, start=1):
        try:
            good = isinstance(reply, str) and bool(chess.Move.from_uci(reply))
        except ValueError:
            good = False
        if not good:
            raise ConfigError(f"{name}: reset option replies: move {row}, {reply!r:.40}, is no UCI move such as 'e7e5'")
    return list(replies)
