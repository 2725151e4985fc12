"""Playing many episodes at once."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from qsft.data.progress import RowProgress
from qsft.data.trajectory import AGENT_ROLE, Trajectory, Turn
from qsft.envs.rollout import derive_seed
from qsft.errors import ConfigError
from qsft.policies.base import Policy

logger = logging.getLogger(__name__)

# derive_seed's key of evaluation episodes; collecting data uses 0 and 1, so that no seed plays the training games.
_EPISODES = 2


def episode_seed(seed: int, episode: int) -> int:
    """Seed of the environment in which episode ``episode`` of the evaluation ``seed`` is played.

    Raises:
        ConfigError: a negative ``seed``.
    """
    return derive_seed(seed, _EPISODES, episode)


def rollout(
    policy: Policy,
    env_factory: Callable[[], gymnasium.Env],
    episodes: int,
    seed: int,
    batch_size: int = 256,
    *,
    progress: bool = True,
) -> Iterator[Trajectory]:
    """Plays ``episodes`` episodes, up to ``batch_size`` at once, and yields them in the order of their numbers.

    Episode i is reset with ``episode_seed(seed, i)``: every policy meets the same episodes, and neither the batch size
    nor the policy's speed changes which. The policy is seeded once with ``seed``; one that draws random numbers still
    depends on the batch size, because that decides in which order it is asked.

    Metadata of each trajectory: ``env``, ``policy``, ``seed``, ``episode``, and once it is over ``success``, ``turns``
    (agent turns) and the environment's ``reset_options`` (such as Wordle's ``secret``) as its last info tells them.
    The environment's last text is kept where it has one.

    An exception in an environment's ``reset`` or ``step`` (or a reward that is not finite) ends that episode alone:
    ``metadata["error"]`` says what happened, ``ended`` stays ``None``, the environment is replaced, the first of each
    kind is logged, and :func:`failed` finds them. An exception of the policy or of ``env_factory`` is raised.

    Args:
        policy: plays all episodes.
        env_factory: makes one environment; called at most ``batch_size`` times, and once more after each exception.
        episodes: how many to play, at least 1.
        seed: at least 0.
        batch_size: how many are played at once.
        progress: show a bar with rate and time left on stderr when it takes more than a moment.

    Raises:
        ConfigError: no episodes, no batch, a policy that answers with another number of actions than it was asked for,
            or an environment whose observation is not text or whose last info lacks ``success``.
    """
    if episodes < 1 or batch_size < 1:
        raise ConfigError(f"episodes {episodes}, batch size {batch_size}: both must be at least 1")
    episode_seed(seed, 0)  # a bad seed fails here, not at the first use of the iterator
    return _play(_Player(policy, env_factory, seed), episodes, min(batch_size, episodes), progress)


def failed(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """The episodes that an exception of their environment ended."""
    return [t for t in trajectories if "error" in t.metadata]


def _play(player: _Player, episodes: int, batch_size: int, progress: bool) -> Iterator[Trajectory]:
    policy = player.policy
    policy.seed(player.seed)
    waiting = iter(range(episodes))
    finished: dict[int, Trajectory] = {}
    next_out = 0
    playing: list[_Slot] = []
    free: list[gymnasium.Env] = []
    over = 0
    with RowProgress(f"Playing {policy.name}", lambda: over / episodes) if progress else nullcontext() as bar:
        try:
            while next_out < episodes:
                while len(playing) < batch_size and (episode := next(waiting, None)) is not None:
                    playing.append(player.start(episode, free.pop() if free else None))
                player.step([slot for slot in playing if not slot.over])
                for slot in [slot for slot in playing if slot.over]:
                    finished[slot.episode] = slot.trajectory
                    playing.remove(slot)
                    if slot.env is not None:
                        free.append(slot.env)
                    over += 1
                    if bar is not None:
                        bar.advance()
                while next_out in finished:
                    yield finished.pop(next_out)
                    next_out += 1
        finally:
            for env in [slot.env for slot in playing if slot.env is not None] + free:
                env.close()


@dataclass(slots=True, eq=False)
class _Slot:
    """One episode being played; ``env`` is None once it has raised."""

    episode: int
    env: gymnasium.Env | None
    trajectory: Trajectory
    over: bool = False


class _Player:
    """Starts and steps episodes, and writes down what happens."""

    def __init__(self, policy: Policy, env_factory: Callable[[], gymnasium.Env], seed: int) -> None:
        self.policy, self.env_factory, self.seed = policy, env_factory, seed
        self.reported: set[str] = set()

    def start(self, episode: int, env: gymnasium.Env | None) -> _Slot:
        env = env if env is not None else self.env_factory()
        metadata = {
            "env": _attribute(env, "name", type(env.unwrapped).__name__),
            "policy": self.policy.name,
            "seed": self.seed,
            "episode": episode,
        }
        slot = _Slot(episode, env, Trajectory(metadata=metadata))
        try:
            observation, _ = env.reset(seed=episode_seed(self.seed, episode))
        except Exception as error:
            self._fail(slot, error)
        else:
            self._observe(slot, observation)
        return slot

    def step(self, slots: list[_Slot]) -> None:
        if not slots:
            return
        actions = self.policy.act([slot.trajectory for slot in slots])
        if len(actions) != len(slots):
            raise ConfigError(
                f"policy {self.policy.name}: {len(actions)} actions for {len(slots)} histories: "
                "act must return one action per history"
            )
        for slot, action in zip(slots, actions, strict=True):
            self._step_one(slot, action)

    def _step_one(self, slot: _Slot, action: str) -> None:
        assert slot.env is not None
        try:
            observation, reward, terminated, truncated, info = slot.env.step(action)
            reward = float(reward)
            if not math.isfinite(reward):
                raise ValueError(f"reward {reward} is not finite")
        except Exception as error:
            # The turn that broke the environment stays visible, without a reward.
            slot.trajectory.turns.append(Turn(AGENT_ROLE, action))
            self._fail(slot, error)
            return
        slot.trajectory.turns.append(Turn(AGENT_ROLE, action, reward=reward))
        self._observe(slot, observation)
        if terminated or truncated:
            if not isinstance(info.get("success"), (bool, np.bool_)):
                raise ConfigError(
                    f"environment {slot.trajectory.metadata['env']}: its last info has no bool 'success'; add one"
                )
            pinned = {name: info[name] for name in _attribute(slot.env, "reset_options", ()) if name in info}
            slot.trajectory.ended = "terminated" if terminated else "truncated"
            slot.trajectory.metadata.update(success=bool(info["success"]), **pinned)
            self._close_books(slot)

    def _observe(self, slot: _Slot, observation: Any) -> None:
        if not isinstance(observation, str):
            raise ConfigError(
                f"environment {slot.trajectory.metadata['env']}: its observation is a {type(observation).__name__}: "
                "rollout needs text"
            )
        if observation:
            slot.trajectory.turns.append(Turn("user", observation))

    def _fail(self, slot: _Slot, error: Exception) -> None:
        assert slot.env is not None
        description = f"{type(error).__name__}: {error}"
        slot.trajectory.metadata["error"] = description
        if description not in self.reported:
            self.reported.add(description)
            logger.warning("episode %d of %s failed: %s", slot.episode, slot.trajectory.metadata["env"], description)
        # Its state may be broken: it is not used again.
        broken, slot.env = slot.env, None
        self._close_books(slot)
        try:
            broken.close()
        except Exception as second:
            logger.warning("closing it failed too: %s: %s", type(second).__name__, second)

    def _close_books(self, slot: _Slot) -> None:
        slot.over = True
        slot.trajectory.metadata["turns"] = sum(1 for _ in slot.trajectory.agent_turns)


def _attribute(env: gymnasium.Env, name: str, default: Any) -> Any:
    """An attribute of the environment, through any wrappers; adapters of other people's may lack it."""
    return env.get_wrapper_attr(name) if env.has_wrapper_attr(name) else default
