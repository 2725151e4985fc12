"""Trajectories: the data structure, its files, its tokenisation, and what training reads.

The names below are imported when they are first used: playing a game needs no torch, and checking a file no tokenizer.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qsft.data.batch import NO_ACTION, TokenBatch, TrajectoryCollator, state_positions
    from qsft.data.dataset import agent_token_ids, check_dummy_token, filter_top, tokenize_file
    from qsft.data.files import append_trajectories, load_trajectories, write_trajectories
    from qsft.data.returns import ReturnRange, returns_to_go
    from qsft.data.rows import trajectory_from_row, trajectory_to_row
    from qsft.data.summary import Summary, render, summarise
    from qsft.data.tokenize import TrajectoryTokenizer
    from qsft.data.trajectory import AGENT_ROLE, ENVIRONMENT_ROLES, Ended, Trajectory, Turn

_MODULES = {
    "batch": ("NO_ACTION", "TokenBatch", "TrajectoryCollator", "state_positions"),
    "dataset": ("agent_token_ids", "check_dummy_token", "filter_top", "tokenize_file"),
    "files": ("append_trajectories", "load_trajectories", "write_trajectories"),
    "returns": ("ReturnRange", "returns_to_go"),
    "rows": ("trajectory_from_row", "trajectory_to_row"),
    "summary": ("Summary", "render", "summarise"),
    "tokenize": ("TrajectoryTokenizer",),
    "trajectory": ("AGENT_ROLE", "ENVIRONMENT_ROLES", "Ended", "Trajectory", "Turn"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "AGENT_ROLE",
    "ENVIRONMENT_ROLES",
    "NO_ACTION",
    "Ended",
    "ReturnRange",
    "Summary",
    "TokenBatch",
    "Trajectory",
    "TrajectoryCollator",
    "TrajectoryTokenizer",
    "Turn",
    "agent_token_ids",
    "append_trajectories",
    "check_dummy_token",
    "filter_top",
    "load_trajectories",
    "render",
    "returns_to_go",
    "state_positions",
    "summarise",
    "tokenize_file",
    "trajectory_from_row",
    "trajectory_to_row",
    "write_trajectories",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
