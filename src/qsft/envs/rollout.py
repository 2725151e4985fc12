"""Any policy in any environment: episodes played in lockstep, turn by turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qsft.data.trajectory import AGENT_ROLE, Trajectory, Turn
from qsft.envs.base import Environment, EpisodeError
from qsft.errors import ConfigError

if TYPE_CHECKING:
    from qsft.policies.base import Policy


def rollout(
    environments: Sequence[Environment],
    policy: Policy,
    seeds: Sequence[int],
    options: Sequence[Mapping[str, Any]] | None = None,
) -> list[Trajectory]:
    """Plays one episode in each environment, all at the same time.

    Args:
        environments: n instances; each is reset first.
        policy: asked once a turn for the actions of all unfinished episodes, in the order of ``environments``.
        seeds: n seeds, one for each reset.
        options: n reset options, such as ``{"secret": "crane"}``; ``None`` for none.

    Returns:
        n finished trajectories. The environment speaks as ``"user"``, its last answer included unless it is empty.
        Their metadata holds the reset options that replay the episode, and ``success``.

    Raises:
        EpisodeError: the policy did not return one text for each history.
    """
    episodes: list[Trajectory] = []
    for i, (environment, seed) in enumerate(zip(environments, seeds, strict=True)):
        observation, _ = environment.reset(seed=seed, options=dict(options[i]) if options else None)
        episodes.append(Trajectory([Turn("user", observation)]))
    playing = list(range(len(episodes)))
    while playing:
        actions = policy.act([episodes[i] for i in playing])
        if len(actions) != len(playing):
            raise EpisodeError(f"policy {policy.name!r} returned {len(actions)} actions for {len(playing)} histories")
        for i, action in zip(playing, actions, strict=True):
            observation, reward, terminated, truncated, info = environments[i].step(action)
            episode = episodes[i]
            episode.turns.append(Turn(AGENT_ROLE, action, float(reward)))
            if observation:
                episode.turns.append(Turn("user", observation))
            if terminated or truncated:
                episode.ended = "terminated" if terminated else "truncated"
                pinned = {name: info[name] for name in environments[i].reset_options}
                episode.metadata = {**pinned, "success": bool(info["success"])}
        playing = [i for i in playing if episodes[i].ended is None]
    return episodes


def derive_seed(seed: int, *key: int) -> int:
    """A seed for one purpose, as good as independent of those for other keys.

    Args:
        seed: the user's, at least 0.
        key: what it is for, such as a purpose's number and an episode's.

    Raises:
        ConfigError: a negative ``seed``.
    """
    if seed < 0:
        raise ConfigError(f"seed={seed} is negative; give an integer of at least 0")
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1, np.uint64)[0])
