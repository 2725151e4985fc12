"""Wordle with the rules and texts of LMRL-Gym. See README.md beside this file."""

from qsft.envs.wordle.batch import WordleBatch
from qsft.envs.wordle.env import Wordle
from qsft.envs.wordle.render import tiles_text
from qsft.envs.wordle.texts import symbols

__all__ = ["Wordle", "WordleBatch", "symbols", "tiles_text"]
