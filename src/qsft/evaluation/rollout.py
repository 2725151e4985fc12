"""Playing many episodes at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext

import gymnasium

from qsft.data.progress import RowProgress
from qsft.data.trajectory import Trajectory
from qsft.envs.rollout import Game, derive_seed, env_name, play
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

    Metadata of each trajectory, once it is over: ``env``, ``policy``, ``seed``, ``episode``, ``success``, ``turns``
    (agent turns) and the environment's ``reset_options`` (such as Wordle's ``secret``) as its last info tells them.
    The environment's last text is kept where it has one. Pictures are kept as the content of PNG files.

    An exception in an environment's ``reset`` or ``step`` (or a reward that is not finite) ends that episode alone:
    ``metadata["error"]`` says what happened, ``ended`` stays ``None``, the environment is replaced, the first of each
    kind is logged, and :func:`failed` finds them; so it is where a policy has no action for an episode
    (:class:`qsft.errors.UnansweredTurns`). Other exceptions of the policy and of ``env_factory`` are raised, and so is a
    ``ConfigError`` of ``reset``; the episodes that are over by then are yielded before.

    Args:
        policy: plays all episodes.
        env_factory: makes one environment; called at most ``batch_size`` times, and once more after each exception.
        episodes: how many to play, at least 1.
        seed: at least 0.
        batch_size: how many are played at once.
        progress: show a bar with rate and time left on stderr when it takes more than a moment.

    Raises:
        ConfigError: no episodes, no batch, or an environment whose observation is of another kind
            (:func:`qsft.envs.rollout.observed`) or whose last info lacks ``success``.
        EpisodeError: a policy that answers with another number of actions than it was asked for.
    """
    if episodes < 1 or batch_size < 1:
        raise ConfigError(f"episodes {episodes}, batch size {batch_size}: both must be at least 1")
    episode_seed(seed, 0)  # a bad seed fails here, not at the first use of the iterator
    return _in_order(policy, env_factory, episodes, seed, min(batch_size, episodes), progress)


def failed(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """The episodes that an exception of their environment ended."""
    return [t for t in trajectories if "error" in t.metadata]


def _in_order(
    policy: Policy,
    env_factory: Callable[[], gymnasium.Env],
    episodes: int,
    seed: int,
    batch_size: int,
    progress: bool,
) -> Iterator[Trajectory]:
    policy.seed(seed)
    finished: dict[int, Trajectory] = {}
    next_out = over = 0
    environments = _Environments(env_factory)
    seeds = (episode_seed(seed, episode) for episode in range(episodes))
    with RowProgress(f"Playing {policy.name}", lambda: over / episodes) if progress else nullcontext() as bar:
        try:
            for game in play(policy, seeds, environments.make, batch_size, on_error=environments.mark):
                played = game.trajectory
                source = {"env": environments.name, "policy": policy.name, "seed": seed, "episode": game.number}
                played.metadata = {**source, **played.metadata, "turns": sum(1 for _ in played.agent_turns)}
                finished[game.number] = played
                over += 1
                if bar is not None:
                    bar.advance()
                while next_out in finished:
                    yield finished.pop(next_out)
                    next_out += 1
        except (Exception, KeyboardInterrupt):
            yield from (finished.pop(number) for number in sorted(finished))
            raise
        finally:
            environments.close()


class _Environments:
    """The environments of one evaluation: made, marked when they break, and closed."""

    def __init__(self, factory: Callable[[], gymnasium.Env]) -> None:
        self.factory = factory
        self.open: list[gymnasium.Env] = []
        self.reported: set[str] = set()
        self.name = ""

    def make(self) -> gymnasium.Env:
        env = self.factory()
        self.open.append(env)
        self.name = env_name(env)
        return env

    def mark(self, game: Game, error: Exception) -> None:
        description = f"{type(error).__name__}: {error}"
        game.trajectory.metadata["error"] = description
        if description not in self.reported:
            self.reported.add(description)
            logger.warning("episode %d of %s failed: %s", game.number, self.name, description)
        assert game.env is not None
        self.open.remove(game.env)
        try:
            game.env.close()
        except Exception as second:
            logger.warning("closing it failed too: %s: %s", type(second).__name__, second)

    def close(self) -> None:
        for env in self.open:
            env.close()
