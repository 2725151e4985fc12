"""Guess My City after LMRL-Gym's game. See README.md beside this file."""

from qsft.envs.guess_my_city.env import GuessMyCity, cities_world

__all__ = ["GuessMyCity", "cities_world"]
