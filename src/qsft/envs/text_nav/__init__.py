"""Text-Nav after LMRL-Gym's game. See README.md beside this file."""

from qsft.envs.text_nav.env import TextNav

__all__ = ["TextNav"]
