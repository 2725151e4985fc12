"""Household tasks in text and pictures: the world of ALFWorld."""

from qsft.envs.alfworld.env import ALFWorld
from qsft.envs.alfworld.spec import TASK_TYPES, Spec

__all__ = ["TASK_TYPES", "ALFWorld", "Spec"]
