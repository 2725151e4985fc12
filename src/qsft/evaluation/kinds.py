"""What an environment tells of an evaluation's episodes: rows by kind, such as ALFWorld's types of tasks, and counts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from qsft.data.trajectory import Trajectory
from qsft.envs.registry import environment_class
from qsft.evaluation.results import evaluation_row

_KEPT = ("episodes", "return_mean", "return_ci95", "success_rate", "success_ci95")


def rows_by_kind(env_name: str, trajectories: Iterable[Trajectory]) -> dict[str, dict[str, Any]]:
    """Kind -> its part of the evaluation, in alphabetical order; empty where the environment has no kinds.

    Args:
        env_name: as for :func:`qsft.envs.make`.
        trajectories: all episodes of one rollout; those that an exception ended count nowhere.
    """
    kind_of = environment_class(env_name).kind
    kinds: dict[str, list[Trajectory]] = {}
    for trajectory in trajectories:
        if "error" not in trajectory.metadata and (kind := kind_of(trajectory.metadata)) is not None:
            kinds.setdefault(kind, []).append(trajectory)
    rows = {kind: evaluation_row(some, seconds=0) for kind, some in sorted(kinds.items())}
    return {kind: {name: row[name] for name in _KEPT} for kind, row in rows.items()}


def mean_counts(env_name: str, trajectories: Iterable[Trajectory]) -> dict[str, float]:
    """Means of what the environment counts in an episode, such as illegal moves; empty where it counts nothing.

    Args:
        env_name, trajectories: as for :func:`rows_by_kind`.
    """
    count = environment_class(env_name).counts
    counted = [count(each) for each in trajectories if "error" not in each.metadata]
    names = counted[0] if counted else {}
    return {name: sum(each[name] for each in counted) / len(counted) for name in names}
