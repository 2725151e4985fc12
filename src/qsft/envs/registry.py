"""The environments by name. Nothing is imported before it is asked for, so a heavy environment costs nothing."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from qsft.envs.base import Environment
from qsft.errors import ConfigError, QSFTError

if TYPE_CHECKING:
    from qsft.data.trajectory import Trajectory
    from qsft.policies.base import Policy

#: name -> "module:Class". A benchmark plugs in with one line here.
ENVIRONMENTS: dict[str, str] = {
    "wordle": "qsft.envs.wordle.env:Wordle",
    "chess": "qsft.envs.chess.env:Chess",
    "endgames": "qsft.envs.chess.endgames:Endgames",
    "alfworld": "qsft.envs.alfworld.env:ALFWorld",
    "alfworld-image": "qsft.envs.alfworld.images:ALFWorldImage",
    "maze": "qsft.envs.maze.env:MazeGame",
    "guess-my-city": "qsft.envs.guess_my_city.env:GuessMyCity",
    "text-nav": "qsft.envs.text_nav.env:TextNav",
    "twenty-questions": "qsft.envs.twenty_questions.env:TwentyQuestions",
    "webshop": "qsft.envs.webshop:WebShop",
    "pick": "qsft.envs.manipulation.env:Pick",
    "place": "qsft.envs.manipulation.env:Place",
    "drawer": "qsft.envs.manipulation.env:Drawer",
    "closed-drawer": "qsft.envs.manipulation.env:ClosedDrawer",
    "blocked-drawer": "qsft.envs.manipulation.env:BlockedDrawer",
}


def names() -> list[str]:
    """Names that :func:`make` knows, sorted."""
    return sorted(ENVIRONMENTS)


def make(name: str, **options: Any) -> Environment:
    """A new environment.

    Args:
        name: one of :func:`names`, or ``"module:Class"`` of an :class:`Environment` of your own.
        options: arguments of that environment's class.

    Raises:
        ConfigError: unknown name, unknown option, or an option's value that the environment refuses.
    """
    cls = environment_class(name)
    return _call(cls, f"environment {name!r}", **options)


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """See that an environment has options of these names, without making one, which some need minutes or a program for.

    Raises:
        ConfigError: unknown name or option.
    """
    _check_names(environment_class(name), f"environment {name!r}", options)


def scripted_policies(name: str) -> list[str]:
    """Names of the environment's scripted policies, sorted."""
    return sorted(environment_class(name).policies)


def symbols(name: str, whole_actions: bool = False, **options: Any) -> list[str]:
    """All symbols of the texts of ``make(name, **options)``; see :meth:`Environment.symbols`."""
    return make(name, **options).symbols(whole_actions)


def legal_actions(name: str, **options: Any) -> Callable[[Trajectory], list[str]]:
    """What tells the legal actions in ``make(name, **options)``; see :attr:`Environment.legal_actions`.

    Raises:
        ConfigError: its texts do not tell them.
    """
    rules = make(name, **options).legal_actions
    if rules is None:
        raise ConfigError(f"{name}: its texts do not tell which actions are legal; chess and endgames do.")
    return rules


def make_policy(
    env_name: str,
    policy_name: str,
    *,
    env_options: Mapping[str, Any] | None = None,
    seed: int = 0,
    **policy_options: Any,
) -> Policy:
    """A scripted policy of an environment, ready to play.

    Args:
        env_name: as for :func:`make`.
        policy_name: one of ``scripted_policies(env_name)``.
        env_options: options of the environment that the policy will play in.
        seed: what the policy's random generator starts from.
        policy_options: arguments of that policy's class.

    Raises:
        ConfigError: unknown name or option.
    """
    cls = environment_class(env_name)
    if policy_name not in cls.policies:
        known = ", ".join(sorted(cls.policies)) or "none"
        raise ConfigError(f"environment {env_name!r} has no scripted policy {policy_name!r}; it has: {known}")
    factory = _load(cls.policies[policy_name])
    policy = _call(factory, f"policy {policy_name!r}", make(env_name, **(env_options or {})), **policy_options)
    policy.seed(seed)
    return policy


def environment_class(name: str) -> type[Environment]:
    """The class behind a name, imported now.

    Raises:
        ConfigError: unknown name, or not an :class:`Environment`.
    """
    target = name if ":" in name else ENVIRONMENTS.get(name)
    if target is None:
        raise ConfigError(f"unknown environment {name!r}; known: {', '.join(names())}, or 'module:Class' of your own")
    cls = _load(target)
    if not (isinstance(cls, type) and issubclass(cls, Environment)):
        raise ConfigError(f"{target!r} is not a subclass of qsft.envs.Environment")
    return cls


def _load(target: str) -> Any:
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ConfigError:  # a missing extra, which says itself what to install
        raise
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ConfigError(f"cannot import {target!r} ({error}); is its package installed and on the path?") from error


def _check_names(factory: Any, what: str, options: Mapping[str, Any], given: int = 0) -> None:
    parameters = list(inspect.signature(factory).parameters)[given:]
    for option in options:
        if option not in parameters:
            raise ConfigError(f"{what} has no option {option!r}; it has: {', '.join(parameters) or 'none'}")


def _call(factory: Any, what: str, *args: Any, **options: Any) -> Any:
    """``factory(*args, **options)``, with a message that names the options where one is unknown or of the wrong type."""
    _check_names(factory, what, options, len(args))
    try:
        return factory(*args, **options)
    except QSFTError:
        raise
    except (TypeError, ValueError, OverflowError, OSError) as error:  # a value of another type, or a bad path
        given = ", ".join(f"{name}={value!r:.60}" for name, value in options.items()) or "no options"
        raise ConfigError(f"{what} cannot be made with {given}: {error}") from error
