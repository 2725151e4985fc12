"""What a player can know of where it is, from the texts alone.

A *belief* is the set of places (maze and cell) that fit everything seen so far. Moves are certain and never bring two
places together that look the same, so all places of a belief are equally likely. There are few beliefs that can come up
at all; they are worked out once and numbered.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from qsft.envs.maze.mazes import MOVES, Cell, Maze
from qsft.envs.maze.texts import observation_text

Place = tuple[Maze, Cell]


class Knowledge:
    """The beliefs that can come up in some mazes under some observation.

    Attributes:
        places: the places of each belief.
        first: observation -> belief at the start.
    """

    def __init__(self, mazes: tuple[Maze, ...], observation: str) -> None:
        self._observation = observation
        self.places: list[frozenset[Place]] = []
        self._numbers: dict[frozenset[Place], int] = {}
        self.first = self._seen((maze, cell) for maze in mazes for cell in maze.cells)
        self._next: list[dict[str, dict[str, int]]] = []
        while len(self._next) < len(self.places):  # finding what follows a belief may add beliefs
            belief = self.places[len(self._next)]
            self._next.append(
                {move: self._seen((maze, maze.after(cell, move)) for maze, cell in belief) for move in MOVES}
            )

    def after(self, belief: int, move: str, observation: str) -> int | None:
        """The belief after a move and what was seen then; ``None`` if that cannot be seen there."""
        return self._next[belief][move].get(observation)

    def _seen(self, places: Iterable[Place]) -> dict[str, int]:
        """Observation -> belief, over places of which those at the goal are left out: the episode is over there."""
        found: dict[str, set[Place]] = {}
        for maze, cell in places:
            if cell != maze.goal:
                found.setdefault(observation_text(maze, cell, self._observation), set()).add((maze, cell))
        return {text: self._number(frozenset(places)) for text, places in found.items()}

    def _number(self, belief: frozenset[Place]) -> int:
        number = self._numbers.setdefault(belief, len(self.places))
        if number == len(self.places):
            self.places.append(belief)
        return number

    def best_moves(self) -> list[str]:
        """For each belief the move with the highest expected return, the first of equals; the limit is left aside.

        By value iteration on the sum of the returns over a belief's places. It ends where nothing changes any more:
        returns are whole numbers.
        """
        values = [0] * len(self.places)
        while True:
            new = [max(self._value(belief, move, values) for move in MOVES) for belief in range(len(values))]
            if new == values:
                break
            values = new
        return [max(MOVES, key=lambda move: self._value(belief, move, values)) for belief in range(len(values))]

    def _value(self, belief: int, move: str, values: list[int]) -> int:
        following = self._next[belief][move].values()
        return sum(values[after] - len(self.places[after]) for after in following)


@cache
def knowledge(mazes: tuple[Maze, ...], observation: str) -> Knowledge:
    """The :class:`Knowledge` of these arguments, made once."""
    return Knowledge(mazes, observation)
