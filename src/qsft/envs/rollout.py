"""Any policy in any environment: the one loop that plays episodes, many at once, turn by turn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

from qsft.data.pictures import png
from qsft.data.trajectory import AGENT_ROLE, Trajectory, Turn
from qsft.endpoint import EndpointError, RefusedRequest
from qsft.envs.base import EpisodeError
from qsft.errors import ConfigError, UnansweredTurns

if TYPE_CHECKING:
    from qsft.policies.base import Policy


@dataclass(slots=True, eq=False)
class Game:
    """One episode in play.

    Attributes:
        number: from 0, in the order of the seeds.
        env: the environment it is played in; ``None`` once that has raised.
        trajectory: what was said so far. At the end its metadata holds ``success`` and the reset options that replay it.
        over: nobody moves any more.
    """

    number: int
    env: gymnasium.Env | None
    trajectory: Trajectory = field(default_factory=Trajectory)
    over: bool = False


def play(
    policy: Policy,
    seeds: Iterable[int],
    env_factory: Callable[[], gymnasium.Env],
    places: int,
    options: Sequence[Mapping[str, Any]] | None = None,
    on_error: Callable[[Game, Exception], None] | None = None,
) -> Iterator[Game]:
    """Plays one episode a seed, up to ``places`` at once, and yields each when it is over.

    Args:
        policy: asked once a turn for the actions of all episodes in play, in the order in which they began.
        seeds: of each reset.
        env_factory: makes an environment when none is free; those of finished episodes are used again.
        places: how many are played at once.
        options: reset options of each episode, such as ``{"secret": "crane"}``; ``None`` for none.
        on_error: gets what an environment's ``reset`` or ``step`` raised (or the fact that a reward is not finite), or
            why the policy has no action (:class:`qsft.errors.UnansweredTurns`); that episode is over then, and its
            environment is not used again. ``None``: it is raised.

    Raises:
        EpisodeError: the policy did not return one text for each history.
        ConfigError: an observation of another kind (:func:`observed`), a last info without ``success``, or one that an
            environment's ``reset`` raises: other episodes would fare no better.
    """
    starts = enumerate(seeds)
    playing: list[Game] = []
    free: list[gymnasium.Env] = []
    while True:
        while len(playing) < places and (start := next(starts, None)) is not None:
            number, seed = start
            game = Game(number, free.pop() if free else env_factory())
            playing.append(game)
            _reset(game, seed, dict(options[number]) if options else None, on_error)
        if not playing:
            return
        _one_turn(policy, [game for game in playing if not game.over], on_error)
        for game in [game for game in playing if game.over]:
            playing.remove(game)
            if game.env is not None:
                free.append(game.env)
            yield game


def rollout(
    environments: Sequence[gymnasium.Env],
    policy: Policy,
    seeds: Sequence[int],
    options: Sequence[Mapping[str, Any]] | None = None,
    on_error: Callable[[Game, Exception], None] | None = None,
) -> list[Trajectory]:
    """Plays one episode in each environment, all at the same time (see :func:`play`).

    Args:
        environments: n instances; each is reset first.
        policy: who plays.
        seeds: n seeds, one for each reset.
        options: n reset options; ``None`` for none.
        on_error: as for :func:`play`; the number of a game is that of its environment.

    Returns:
        n finished trajectories. The environment speaks as ``"user"``, its last answer included unless it is empty.
        Their metadata holds the reset options that replay the episode, and ``success``.
    """
    if len(environments) != len(seeds):
        raise ConfigError(f"{len(environments)} environments and {len(seeds)} seeds: give one seed an environment")
    waiting = iter(environments)
    played = play(policy, seeds, lambda: next(waiting), len(environments), options, on_error)
    games = sorted(played, key=lambda game: game.number)
    return [game.trajectory for game in games]


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


def env_name(env: gymnasium.Env) -> str:
    """The environment's name, through any wrappers; its class where it has none."""
    return str(_attribute(env, "name", type(env.unwrapped).__name__))


def observed(observation: Any, name: str) -> Turn:
    """What an environment shows as a turn; pictures become the content of PNG files.

    Args:
        observation: a text; pictures, ``[height, width, 3]`` or several of one size ``[n, height, width, 3]``, uint8; or
            ``{"text": ..., "image": ...}`` with both.
        name: of the environment, for errors.

    Raises:
        ConfigError: anything else.
    """
    if isinstance(observation, str):
        return Turn("user", observation)
    parts = observation if isinstance(observation, Mapping) else {"image": observation}
    text, pictures = parts.get("text", ""), parts.get("image")
    if not (isinstance(text, str) and isinstance(pictures, np.ndarray) and parts.keys() <= {"text", "image"}):
        raise ConfigError(
            f"environment {name}: its observation is a {type(observation).__name__}: rollout needs text, a picture, or "
            "{'text': ..., 'image': ...}"
        )
    if pictures.dtype != np.uint8 or pictures.ndim not in (3, 4) or pictures.shape[-1] != 3:
        raise ConfigError(
            f"environment {name}: a picture of shape {pictures.shape} and type {pictures.dtype}; it must be "
            "[height, width, 3], uint8"
        )
    shown = pictures if pictures.ndim == 4 else pictures[None]
    return Turn("user", text, images=tuple(png(picture) for picture in shown))


def _reset(
    game: Game, seed: int, options: dict[str, Any] | None, on_error: Callable[[Game, Exception], None] | None
) -> None:
    assert game.env is not None
    try:
        observation, _ = game.env.reset(seed=seed, options=options)
    except ConfigError:
        raise
    except Exception as error:
        _broken(game, error, on_error)
    else:
        _observe(game, observation)


def _one_turn(policy: Policy, games: list[Game], on_error: Callable[[Game, Exception], None] | None) -> None:
    if not games:
        return
    lost: dict[int, Exception] = {}
    actions: Sequence[str | None]
    try:
        actions = policy.act([game.trajectory for game in games])
    except UnansweredTurns as some:
        if on_error is None:
            raise
        actions, lost = some.actions, some.errors
    if len(actions) != len(games):
        raise EpisodeError(
            f"policy {policy.name!r} returned {len(actions)} actions for {len(games)} histories; act must return one each"
        )
    for place, (game, action) in enumerate(zip(games, actions, strict=True)):
        if action is None:
            _broken(game, lost[place], on_error)
        else:
            _step(game, action, on_error)


def _step(game: Game, action: str, on_error: Callable[[Game, Exception], None] | None) -> None:
    assert game.env is not None
    try:
        observation, reward, terminated, truncated, info = game.env.step(action)
        reward = float(reward)
        if not math.isfinite(reward):
            raise ValueError(f"reward {reward} is not finite")
    except Exception as error:
        # the turn that broke the environment stays visible, without a reward
        game.trajectory.turns.append(Turn(AGENT_ROLE, action))
        _broken(game, error, on_error)
        return
    game.trajectory.turns.append(Turn(AGENT_ROLE, action, reward))
    _observe(game, observation)
    if terminated or truncated:
        if not isinstance(info.get("success"), (bool, np.bool_)):
            raise ConfigError(f"environment {env_name(game.env)}: its last info has no bool 'success'; add one")
        pinned = {name: info[name] for name in _attribute(game.env, "reset_options", ()) if name in info}
        game.trajectory.ended = "terminated" if terminated else "truncated"
        unsound = {"unstable": True} if info.get("unstable") else {}  # a simulation that broke down
        game.trajectory.metadata = {**pinned, **unsound, "success": bool(info["success"])}
        game.over = True


def _of_all(error: Exception) -> bool:
    """Whether it would meet every other episode too: an endpoint that answers an environment's questions is down."""
    return isinstance(error, EndpointError) and not isinstance(error, RefusedRequest)


def _observe(game: Game, observation: Any) -> None:
    assert game.env is not None
    turn = observed(observation, env_name(game.env))
    if turn.text or turn.images:
        game.trajectory.turns.append(turn)


def _broken(game: Game, error: Exception, on_error: Callable[[Game, Exception], None] | None) -> None:
    if on_error is None or _of_all(error):
        raise error
    on_error(game, error)
    game.env, game.over = None, True


def _attribute(env: gymnasium.Env, name: str, default: Any) -> Any:
    """An attribute of the environment, through any wrappers; adapters of other people's may lack it."""
    return env.get_wrapper_attr(name) if env.has_wrapper_attr(name) else default
