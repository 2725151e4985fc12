"""What a player can know of where it is, from the texts alone.

A *belief* is the set of places (maze and cell) that fit everything seen so far. Moves are certain and never bring two
places together that look the same, so all places of a belief are equally likely. There are few beliefs that can come up
at all; they are worked out once.
"""

from __future__ import annotations

from functools import cache

from qsft.envs.maze.mazes import MOVES, Cell, Maze
from qsft.envs.maze.texts import observation_text

Place = tuple[Maze, Cell]
Belief = frozenset[Place]


class Knowledge:
    """The beliefs that can come up in some mazes under some observation.

    Attributes:
        first: observation -> belief at the start.
    """

    def __init__(self, mazes: tuple[Maze, ...], observation: str) -> None:
        self._observation = observation
        starts = [(maze, cell) for maze in mazes for cell in maze.cells if cell != maze.goal]
        self.first = self._by_observation(starts)
        self._next: dict[tuple[Belief, str], dict[str, Belief]] = {}
        waiting = list(self.first.values())
        self._beliefs: set[Belief] = set(waiting)
        while waiting:
            belief = waiting.pop()
            for move in MOVES:
                there = [(maze, maze.after(cell, move)) for maze, cell in belief]
                found = self._by_observation([place for place in there if place[1] != place[0].goal])
                self._next[belief, move] = found
                new = set(found.values()) - self._beliefs
                self._beliefs |= new
                waiting += new

    def after(self, belief: Belief, move: str, observation: str) -> Belief | None:
        """The belief after a move and what was seen then; ``None`` if that cannot be seen there."""
        return self._next[belief, move].get(observation)

    def _by_observation(self, places: list[Place]) -> dict[str, Belief]:
        found: dict[str, set[Place]] = {}
        for maze, cell in places:
            found.setdefault(observation_text(maze, cell, self._observation), set()).add((maze, cell))
        return {text: frozenset(places) for text, places in found.items()}

    def best_moves(self) -> dict[Belief, str]:
        """For each belief the move with the highest expected return, the first of equals; the limit is left aside.

        By value iteration on the sum of the returns over a belief's places. It ends where nothing changes any more:
        returns are whole numbers.
        """
        values = dict.fromkeys(self._beliefs, 0)
        while True:
            new = {belief: max(self._value(belief, move, values) for move in MOVES) for belief in values}
            if new == values:
                break
            values = new
        return {belief: max(MOVES, key=lambda move: self._value(belief, move, values)) for belief in values}

    def _value(self, belief: Belief, move: str, values: dict[Belief, int]) -> int:
        following = self._next[belief, move].values()
        return sum(values[after] - len(after) for after in following)


@cache
def knowledge(mazes: tuple[Maze, ...], observation: str) -> Knowledge:
    """The :class:`Knowledge` of these arguments, made once."""
    return Knowledge(mazes, observation)
