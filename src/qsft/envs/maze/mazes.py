"""The mazes: where the walls are, which way leads where, and how far the goal is."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import cache, cached_property

from qsft.errors import ConfigError

Cell = tuple[int, int]  # row, column; the upper left corner is (0, 0)

#: move -> rows down, columns right; in the order in which walls are named
MOVES: dict[str, Cell] = {"right": (0, 1), "left": (0, -1), "up": (-1, 0), "down": (1, 0)}

# The two mazes of LMRL-Gym: # is a wall, G the goal.
_DRAWINGS = {
    "double-t": """
        #############
        #.....#.....#
        ###.#####.###
        ###.#####.###
        ###.#####.###
        ###.......###
        ######.######
        ######.######
        ######G######
        #############
    """,
    "umaze": """
        #####
        #...#
        #.#.#
        #.#G#
        #####
    """,
}
NAMES = tuple(_DRAWINGS)


@dataclass(frozen=True, eq=False)  # there is one of each name: equal is the same, and hashing costs nothing
class Maze:
    """A maze surrounded by walls.

    Attributes:
        name: its name.
        cells: all cells that are no wall, row by row (the keys of a dictionary).
        goal: one of them.
    """

    name: str
    cells: dict[Cell, None]
    goal: Cell

    def after(self, cell: Cell, move: str) -> Cell:
        """Where a move leads; a wall leaves one where one is."""
        down, right = MOVES[move]
        there = cell[0] + down, cell[1] + right
        return there if there in self.cells else cell

    def walls(self, cell: Cell) -> tuple[str, ...]:
        """The moves that run into a wall, in the order of :data:`MOVES`."""
        return tuple(move for move in MOVES if self.after(cell, move) == cell)

    @cached_property
    def distances(self) -> dict[Cell, int]:
        """Moves from each cell to the goal, along the shortest way."""
        found = {self.goal: 0}
        queue = deque([self.goal])
        while queue:
            cell = queue.popleft()
            for move in MOVES:  # moves can be undone, so the way back is as long
                there = self.after(cell, move)
                if there not in found:
                    found[there] = found[cell] + 1
                    queue.append(there)
        return found


@cache
def maze_named(name: str) -> Maze:
    """One of :data:`NAMES`.

    Raises:
        ConfigError: unknown name.
    """
    if name not in _DRAWINGS:
        raise ConfigError(f"maze: maze {name!r:.60} is unknown; use one of {', '.join(NAMES)}")
    rows = [row.strip() for row in _DRAWINGS[name].split()]
    signs = {(r, c): sign for r, row in enumerate(rows) for c, sign in enumerate(row) if sign != "#"}
    return Maze(name, dict.fromkeys(signs), next(cell for cell, sign in signs.items() if sign == "G"))
