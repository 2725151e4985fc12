"""Environments by name: ``make``, and their scripted policies: ``make_policy``."""

from qsft.envs.base import Environment, EpisodeError
from qsft.envs.registry import make, make_policy, names, scripted_policies

__all__ = ["Environment", "EpisodeError", "make", "make_policy", "names", "scripted_policies"]
