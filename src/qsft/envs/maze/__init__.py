"""The maze with the rules and texts of LMRL-Gym. See README.md beside this file."""

from qsft.envs.maze.env import MazeGame

__all__ = ["MazeGame"]
