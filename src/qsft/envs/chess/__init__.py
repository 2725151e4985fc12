"""Chess and its endgames against Stockfish, with the rules and texts of LMRL-Gym. See README.md beside this file."""

from qsft.errors import ConfigError

try:
    import chess  # noqa: F401  (the package python-chess, not this one)
except ImportError as error:
    raise ConfigError("chess: the package 'chess' is missing; pip install 'qsft[chess]'") from error

from qsft.envs.chess.endgames import Endgames, held_out_positions
from qsft.envs.chess.engine import EngineError
from qsft.envs.chess.env import Chess
from qsft.envs.chess.render import board_text
from qsft.envs.chess.texts import illegal_moves, symbols

__all__ = ["Chess", "Endgames", "EngineError", "board_text", "held_out_positions", "illegal_moves", "symbols"]
