"""Scripted players of the maze. They know the maze and see what any player sees: the texts.

A policy keeps a *memory* of each episode, folded over its turns: ``remember`` starts one, ``learn`` takes in a move and
what was seen after it, ``choose`` decides. ``act`` folds whole histories; the generator of data folds as it plays.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from qsft.envs.maze.env import MazeGame
from qsft.envs.maze.knowledge import Place, knowledge
from qsft.envs.maze.mazes import MOVES
from qsft.envs.maze.texts import ACTIONS, parse_action
from qsft.errors import DataError

if TYPE_CHECKING:
    from qsft.data.trajectory import Trajectory

Memory = tuple[int, tuple[float, ...]]  # number of the belief; how likely each kind of player is


class MazePolicy(ABC):
    """A player that knows where the walls and the goal are.

    Args:
        environment: the game to be played; its mazes and kind of observation are used, its state is not.
    """

    name: str
    _kinds: tuple[float, ...] = (1.0,)

    def __init__(self, environment: MazeGame) -> None:
        self.mazes = environment.mazes
        self.observation = environment.observation
        self.knowledge = knowledge(environment.mazes, environment.observation)
        self.seed(0)

    def seed(self, seed: int) -> None:
        """Restarts the random generator."""
        self.rng = np.random.default_rng(seed)

    @abstractmethod
    def choose(self, memory: Memory) -> str:
        """The next move: one of ``MOVES``."""

    def remember(self, observation: str) -> Memory:
        """The memory of an episode that begins with ``observation``.

        Raises:
            DataError: no place of the policy's mazes looks so.
        """
        return self._checked(self.knowledge.first.get(observation), observation), self._kinds

    def learn(self, memory: Memory, action: str, observation: str) -> Memory:
        """The memory after an action and what was seen then.

        Raises:
            DataError: that cannot have been seen there.
        """
        move = parse_action(action)
        if move is None:
            return memory
        belief, kinds = memory
        return self._checked(self.knowledge.after(belief, move, observation), observation), kinds

    def _checked(self, belief: int | None, observation: str) -> int:
        if belief is None:
            raise DataError(
                f"maze: no place looks like {observation!r:.150}; give the policy the environment's options"
            )
        return belief

    def act(self, histories: Sequence[Trajectory]) -> list[str]:
        """One action a history, ``"move up\\n"``.

        Raises:
            DataError: a history that is no episode in these mazes with this kind of observation.
        """
        return [ACTIONS[self.choose(self._recall(history))] for history in histories]

    def _recall(self, history: Trajectory) -> Memory:
        memory = self.remember(history.turns[0].text)
        for turn, seen in zip(history.turns, history.turns[1:], strict=False):
            if turn.is_agent:
                memory = self.learn(memory, turn.text, seen.text)
        return memory


class RandomPolicy(MazePolicy):
    """Any of the four moves, walls or not."""

    name = "random"

    def choose(self, memory: Memory) -> str:
        return _MOVES[self.rng.integers(len(_MOVES))]


class OptimalPolicy(MazePolicy):
    """The ceiling: the highest expected return that the observations allow.

    With full observation that is the shortest way. With partial observation it finds out where it is as it goes.
    """

    name = "optimal"

    def __init__(self, environment: MazeGame) -> None:
        super().__init__(environment)
        self._moves = self.knowledge.best_moves()

    def choose(self, memory: Memory) -> str:
        return self._moves[memory[0]]


class PopulationPolicy(MazePolicy):
    """Players of whom each knows one part of the maze; each episode is played by one of them. The behaviour policy.

    The parts are thirds of the way: the cells far from the goal, those in the middle, those near it. In the part that
    it knows, a player takes the shortest way with probability ``STEADY``, anywhere else it goes away from the goal with
    probability ``MISLED``; else it makes any of the four moves. So no player finds the goal quickly from far away, but
    all of them together know every step.

    Where it cannot tell at which of several places it is, it supposes one of them at random. Nobody tells the policy
    who plays: a kind of player is as likely as its earlier moves make it, which is the same distribution of episodes as
    drawing a player at the start.
    """

    name = "population"
    #: together these give the data the mean return of LMRL-Gym's, -83
    STEADY: ClassVar[float] = 0.7
    MISLED: ClassVar[float] = 0.1375
    PARTS: ClassVar[int] = 3
    _kinds = (1 / PARTS,) * PARTS

    def __init__(self, environment: MazeGame) -> None:
        super().__init__(environment)
        self._chances = [self._of(places) for places in self.knowledge.places]

    def choose(self, memory: Memory) -> str:
        belief, kinds = memory
        by_kind = self._chances[belief]
        chances = [sum(kind * by[move] for kind, by in zip(kinds, by_kind, strict=True)) for move in _MOVES]
        point = self.rng.random() * sum(chances)
        for move, chance in zip(_MOVES, chances, strict=True):
            point -= chance
            if point < 0:
                return move
        return _MOVES[-1]

    def learn(self, memory: Memory, action: str, observation: str) -> Memory:
        belief, kinds = super().learn(memory, action, observation)
        move = parse_action(action)
        if move is not None:
            likely = [kind * by[move] for kind, by in zip(kinds, self._chances[memory[0]], strict=True)]
            total = sum(likely)
            kinds = tuple(value / total for value in likely)
        return belief, kinds

    def _of(self, places: Collection[Place]) -> tuple[dict[str, float], ...]:
        """Probability of each move for each kind of player, at one of several places."""
        return tuple(
            {move: sum(self._chance(part, place, move) for place in places) / len(places) for move in _MOVES}
            for part in range(self.PARTS)
        )

    def _chance(self, part: int, place: Place, move: str) -> float:
        maze, cell = place
        distance, farthest = maze.distances[cell], max(maze.distances.values())
        known = (distance - 1) * self.PARTS // farthest == part
        # One step changes the distance by one, unless it runs into a wall.
        wanted = [m for m in _MOVES if maze.distances[maze.after(cell, m)] == distance + (-1 if known else 1)]
        sure = (self.STEADY if known else self.MISLED) if wanted else 0.0
        return sure * (move in wanted) / max(len(wanted), 1) + (1 - sure) / len(_MOVES)


_MOVES = tuple(MOVES)
