"""Watch a policy play in the terminal, or play against the same environment yourself."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from qsft.data.trajectory import AGENT_ROLE, Trajectory, Turn
from qsft.envs import make
from qsft.envs.base import Environment
from qsft.envs.rollout import observed
from qsft.errors import ConfigError
from qsft.evaluation import episode_seed
from qsft.policies.base import Policy


def play(
    policy: Policy | None,
    env_name: str,
    env_options: dict[str, Any],
    episodes: int,
    seed: int,
    pins: dict[str, Any],
    show_values: bool = False,
) -> None:
    """Play episodes turn by turn and print them.

    Args:
        policy: who plays; ``None`` asks the person at the keyboard.
        env_name, env_options: the environment.
        episodes: how many.
        seed: episodes are those that ``qsft evaluate --seed`` plays.
        pins: ``reset`` options, for instance ``{"secret": "crane"}``.
        show_values: print the policy's Q-values (a run of Q-SFT or of a method with Q heads).
    """
    if show_values and not hasattr(policy, "q_values"):
        raise ConfigError(
            "--values: give the folder of a run whose method has Q-values: qsft, ilql, cql, q-transformer or monte-carlo."
        )
    env = make(env_name, **env_options)
    console = Console()
    if policy is not None:
        policy.seed(seed)
    total = 0.0
    for episode in range(episodes):
        total += _episode(env, policy, episode_seed(seed, episode), pins, console, show_values).total_return
    if episodes > 1:
        console.print(f"mean return {total / episodes:.2f} over {episodes} episodes")


def _say(console: Console, text: str, style: str | None = None) -> None:
    """A text as it is, on lines of its own."""
    console.print(text, style=style, end="" if text.endswith("\n") else "\n", markup=False, highlight=False)


def _episode(
    env: Environment, policy: Policy | None, seed: int, pins: dict[str, Any], console: Console, show_values: bool
) -> Trajectory:
    observation, info = env.reset(seed=seed, options=pins or None)
    shown = observed(observation, env.name)
    history = Trajectory([shown])
    _say(console, shown.text)
    while history.ended is None:
        action = _ask(env) if policy is None else policy.act([history])[0]
        if show_values:
            console.print(_values_table(policy, history, action))
        if policy is not None:
            _say(console, action, "bold")
        observation, reward, terminated, truncated, info = env.step(action)
        shown = observed(observation, env.name)
        history.turns += [Turn(AGENT_ROLE, action, float(reward)), shown]
        _say(console, shown.text)
        if terminated or truncated:
            history.ended = "terminated" if terminated else "truncated"
    picture = env.picture(history)
    if picture is not None:
        console.print(picture)
    outcome = "[green]success[/]" if info.get("success") else "[red]no success[/]"
    console.print(f"{outcome}, return {history.total_return:g}\n")
    return history


def _ask(env: Environment) -> str:
    if sys.stdin.isatty():
        print("> ", end="", flush=True)
    line = sys.stdin.readline()
    if not line:
        raise ConfigError("no more input: the episode was left unfinished.")
    return env.typed_action(line.rstrip("\n"))


def _values_table(policy: Any, history: Trajectory, action: str) -> Table:
    """Q of each token of the reply, beside the best alternative at its place."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("token", "Q", "prior", "chosen with", "alternatives (Q)"):
        table.add_column(column, justify="left" if column in ("token", "alternatives (Q)") else "right")
    value = policy.q_values(history, [action])[0]
    for token, others in zip(value.tokens, value.alternatives, strict=True):
        rest = ", ".join(f"{o.token!r} {o.q:.2f}" for o in others if o.token_id != token.token_id)
        shown = rest if len(rest) < 70 else rest[:67] + "..."
        table.add_row(repr(token.token), f"{token.q:.3f}", f"{token.prior:.3f}", f"{token.probability:.3f}", shown)
    return table
