"""Trajectories: the data structure, its files, its tokenisation, and what training reads."""

from qsft.data.batch import NO_ACTION, TokenBatch, TrajectoryCollator, state_positions
from qsft.data.dataset import agent_token_ids, check_dummy_token, filter_top, tokenize_file
from qsft.data.files import append_trajectories, load_trajectories, write_trajectories
from qsft.data.returns import ReturnRange, returns_to_go
from qsft.data.rows import trajectory_from_row, trajectory_to_row
from qsft.data.summary import Summary, render, summarise
from qsft.data.tokenize import TrajectoryTokenizer
from qsft.data.trajectory import AGENT_ROLE, ENVIRONMENT_ROLES, Ended, Trajectory, Turn

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
