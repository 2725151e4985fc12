"""Every method at its own best decoding: chosen on some episodes, judged on others."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium

from qsft.data.trajectory import Trajectory
from qsft.errors import ConfigError
from qsft.evaluation.results import evaluation_row
from qsft.evaluation.rollout import rollout
from qsft.policies.base import Policy


@dataclass(frozen=True, slots=True)
class GridRow:
    """One setting of a grid and its evaluation on the selection episodes."""

    setting: dict[str, Any]
    evaluation: dict[str, Any]
    chosen: bool = False

    def to_json(self) -> dict[str, Any]:
        return {"setting": self.setting, "chosen": self.chosen, "evaluation": self.evaluation}


@dataclass(frozen=True, slots=True)
class GridResult:
    """The whole grid, losers included, and the chosen setting on episodes that had no part in choosing it.

    Attributes:
        rows: one per setting, in the order given; exactly one is ``chosen``.
        test: evaluation of the chosen setting on the test episodes. This is the number to publish.
        trajectories: the test episodes.
    """

    rows: list[GridRow]
    test: dict[str, Any]
    trajectories: list[Trajectory] = field(repr=False)

    @property
    def setting(self) -> dict[str, Any]:
        """The chosen setting."""
        return next(row.setting for row in self.rows if row.chosen)


def select_and_evaluate(
    make_policy: Callable[[Mapping[str, Any]], Policy],
    settings: Sequence[Mapping[str, Any]],
    env_factory: Callable[[], gymnasium.Env],
    select_episodes: int,
    select_seed: int,
    episodes: int,
    seed: int,
    *,
    test_env_factory: Callable[[], gymnasium.Env] | None = None,
    batch_size: int = 256,
    progress: bool = True,
) -> GridResult:
    """Plays every setting on the selection episodes, then the best once on the test episodes.

    The highest of many noisy means is too high: the grid row of the winner flatters it. Its test evaluation does not.
    The winner is the setting with the highest mean return; of equals, the first.

    Args:
        make_policy: makes the policy of one setting.
        settings: the grid, each setting a mapping that JSON can hold.
        select_episodes, select_seed: the episodes on which settings compete (the same for all).
        episodes, seed: the episodes on which the winner is judged.
        test_env_factory: makes the environment of these; ``None``: the same ``env_factory``.

    Raises:
        ConfigError: no settings, a setting given twice, or ``seed`` equal to ``select_seed``.
    """
    grid = [dict(setting) for setting in settings]
    if not grid:
        raise ConfigError("the grid has no settings: give at least one")
    for i, setting in enumerate(grid):
        if setting in grid[:i]:
            raise ConfigError(f"grid setting {i + 1} {setting} is there twice: remove one")
    if seed == select_seed:
        raise ConfigError(f"seed {seed} for both selection and test: give different ones, or selection biases the test")

    def evaluate(
        setting: Mapping[str, Any], factory: Callable[[], gymnasium.Env], count: int, first_seed: int
    ) -> tuple[dict[str, Any], list[Trajectory]]:
        started = time.perf_counter()
        policy = make_policy(setting)
        played = list(rollout(policy, factory, count, first_seed, batch_size, progress=progress))
        return evaluation_row(played, seconds=time.perf_counter() - started), played

    found = [evaluate(setting, env_factory, select_episodes, select_seed)[0] for setting in grid]
    best = max(range(len(grid)), key=lambda i: found[i]["return_mean"])
    test, trajectories = evaluate(grid[best], test_env_factory or env_factory, episodes, seed)
    rows = [GridRow(s, e, chosen=i == best) for i, (s, e) in enumerate(zip(grid, found, strict=True))]
    return GridResult(rows, test, trajectories)
