"""The maze as an environment: text in, text out."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import gymnasium

from qsft.envs.base import BlockPlayer, Environment
from qsft.envs.maze.mazes import maze_named
from qsft.envs.maze.texts import (
    FAILURE,
    OBSERVATIONS,
    SUCCESS,
    observation_text,
    parse_action,
    symbols,
)
from qsft.errors import ConfigError

if TYPE_CHECKING:
    from qsft.policies.base import Policy

MOVES_ALLOWED = 100


class MazeGame(Environment):
    """Find the way to the goal of a small maze; rules and texts of LMRL-Gym (its README tells the differences).

    An action is ``"move up\\n"`` (down, left, right). A move that reaches the goal costs nothing and ends the episode
    with ``"Success\\n"``, any other costs 1, a move into a wall too, and leaves one where one is in that case. Anything
    that is no move leaves one there as well and earns ``invalid_reward``. After 100 actions the next one, whatever it
    is, costs 1 and ends the episode with ``"Failure\\n"`` (``terminated``: the limit is part of the game).

    At the end ``info`` holds ``success``, ``maze`` and ``position``, where it began.
    ``reset(options={"maze": "umaze", "position": [3, 1]})`` pins these; the position is [row, column] from the upper
    left corner, which is [0, 0].

    Args:
        maze: ``"double-t"`` (25 starts, the goal 7.84 moves away on average), ``"umaze"``, or a list of them, from
            which each episode draws.
        observation: ``"full"`` tells goal, position and adjacent walls; ``"partial"`` the walls alone.
        invalid_reward: finite and at most 0.

    Raises:
        ConfigError: a value that is not allowed.
    """

    name: str = "maze"
    policies: ClassVar[dict[str, str]] = {
        "random": "qsft.envs.maze.policies:RandomPolicy",
        "population": "qsft.envs.maze.policies:PopulationPolicy",
        "optimal": "qsft.envs.maze.policies:OptimalPolicy",
    }
    reset_options = ("maze", "position")
    max_turns = MOVES_ALLOWED + 1

    def __init__(
        self, maze: str | Sequence[str] = "double-t", observation: str = "full", invalid_reward: float = -4.0
    ) -> None:
        names = [maze] if isinstance(maze, str) else list(maze)
        if not names:
            raise ConfigError("maze: the list of mazes is empty; give at least one")
        if observation not in OBSERVATIONS:
            raise ConfigError(f"maze: observation={observation!r} is unknown; use one of {', '.join(OBSERVATIONS)}")
        if isinstance(invalid_reward, bool) or not isinstance(invalid_reward, int | float):
            raise ConfigError(f"maze: invalid_reward={invalid_reward!r} is not a number")
        if not math.isfinite(invalid_reward) or invalid_reward > 0:
            raise ConfigError(f"maze: invalid_reward={invalid_reward} must be finite and at most 0, such as -4 or -1")
        self.mazes = tuple(maze_named(name) for name in dict.fromkeys(names))
        self.observation = observation
        self.invalid_reward = float(invalid_reward)
        self.return_range = (MOVES_ALLOWED * min(-1.0, self.invalid_reward) - 1.0, 0.0)
        self.action_space = gymnasium.spaces.Text(max_length=11, charset=string.printable)
        self.observation_space = gymnasium.spaces.Text(max_length=200, charset=string.printable)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Starts an episode; what ``options`` do not pin is drawn uniformly.

        Raises:
            ConfigError: unknown option, a maze that is none of this environment's, or a position that is a wall, the
                goal, or outside of the maze.
        """
        options = self.pins(options)
        known = {maze.name: maze for maze in self.mazes}
        if "maze" in options and options["maze"] not in [*known]:
            raise ConfigError(
                f"maze: maze {options['maze']!r:.60} is none of this environment's ({', '.join(known)}); "
                "name it when you make the environment"
            )
        super().reset(seed=seed, options=options)
        drawn = self.mazes[int(self.np_random.integers(len(self.mazes)))]
        maze = known[options["maze"]] if "maze" in options else drawn
        starts = [cell for cell in maze.cells if cell != maze.goal]
        start = starts[int(self.np_random.integers(len(starts)))]
        if "position" in options:
            given = options["position"]
            # 1.0 equals 1, but texts spell it
            whole = isinstance(given, list | tuple) and all(type(number) is int for number in given)
            if not whole or tuple(given) not in starts:
                self._playing = False
                raise ConfigError(
                    f"maze: position {given!r:.60} is no start of {maze.name!r}; give [row, column] of a free cell "
                    "other than the goal"
                )
            start = tuple(given)
        self._maze = maze
        self._start = self._cell = start
        self._actions = 0
        return observation_text(maze, start, self.observation), {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """One move.

        Raises:
            EpisodeError: the episode is over or was never started, or ``action`` is not a ``str``.
        """
        self.check_step(action)
        if self._actions == MOVES_ALLOWED:
            return self._end(FAILURE, -1.0)
        self._actions += 1
        move = parse_action(action)
        if move is not None:
            self._cell = self._maze.after(self._cell, move)
            if self._cell == self._maze.goal:
                return self._end(SUCCESS, 0.0)
        reward = self.invalid_reward if move is None else -1.0
        return observation_text(self._maze, self._cell, self.observation), reward, False, False, {}

    def _end(self, observation: str, reward: float) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self._playing = False
        info = {"success": observation == SUCCESS, "maze": self._maze.name, "position": list(self._start)}
        return observation, reward, True, False, info

    def symbols(self, whole_actions: bool = False) -> list[str]:
        """The words and numbers of the texts with their marks, and a newline; or moves and walls told of whole."""
        return symbols(self.mazes, self.observation, whole_actions)

    def typed_action(self, text: str) -> str:
        """``"up"`` and ``"move up"`` alike."""
        return text + "\n" if text.startswith("move ") else f"move {text}\n"

    def block_player(self, policy: Policy) -> BlockPlayer | None:
        from qsft.envs.maze.collect import MazePlayer
        from qsft.envs.maze.policies import MazePolicy

        return MazePlayer(self, policy) if isinstance(policy, MazePolicy) else None
