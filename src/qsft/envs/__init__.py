"""Environments by name, their scripted policies, and files of what a policy does in them."""

from qsft.envs.base import Environment, EpisodeError
from qsft.envs.collect import collect_to_file
from qsft.envs.registry import make, make_policy, names, scripted_policies, symbols

__all__ = [
    "Environment",
    "EpisodeError",
    "collect_to_file",
    "make",
    "make_policy",
    "names",
    "scripted_policies",
    "symbols",
]
