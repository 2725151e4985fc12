"""The texts of the maze."""

from __future__ import annotations

from functools import cache

from qsft.envs.maze.mazes import MOVES, Cell, Maze

OBSERVATIONS = ("full", "partial")
SUCCESS, FAILURE = "Success\n", "Failure\n"
ACTIONS = {move: f"move {move}\n" for move in MOVES}
_SIDES = {"right": "to your right", "left": "to your left", "up": "above you", "down": "below you"}


def parse_action(text: str) -> str | None:
    """``"move up\\n" -> "up"``; blanks around it do not matter. ``None`` for anything else."""
    verb, _, move = text.strip().partition(" ")
    return move if verb == "move" and move in MOVES else None


@cache
def observation_text(maze: Maze, cell: Cell, observation: str) -> str:
    """What one is told at a cell, in one line; ``"partial"`` tells the walls alone."""
    walls = _walls(maze, cell)
    if observation == "partial":
        return walls + "\n"
    goal, here = _spelt(maze.goal), _spelt(cell)
    return f"The goal is at position {goal}. Your current position is at position {here}. {walls}\n"


def _walls(maze: Maze, cell: Cell) -> str:
    sides = [_SIDES[move] for move in maze.walls(cell)]
    if not sides:
        return "There are no walls near you."
    if len(sides) == 1:
        return f"There is a wall {sides[0]}."
    return f"There are walls {', '.join(sides)}."


def symbols(mazes: tuple[Maze, ...], observation: str, whole_actions: bool) -> list[str]:
    """Everything between blanks in the texts, for a word-level tokenizer.

    If asked for, the actions are in one piece, and so is what is said of the walls, which keeps long episodes short.
    """
    pieces = {SUCCESS.strip(), FAILURE.strip()}
    for maze in mazes:
        for cell in maze.cells:
            text, walls = observation_text(maze, cell, observation), _walls(maze, cell)
            pieces.update([walls, *text.replace(walls, "").split()] if whole_actions else text.split())
    for action in ACTIONS.values():
        pieces.update([action.strip()] if whole_actions else action.split())
    return ["\n", *sorted(pieces)]


def _spelt(cell: Cell) -> str:
    """A blank between the digits, as the original writes numbers: ``(1, 10) -> "1, 1 0"``."""
    return ", ".join(" ".join(str(number)) for number in cell)
