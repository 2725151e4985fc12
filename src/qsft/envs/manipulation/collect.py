"""Scripted episodes from all stages of a task, with the states that pictures can be made of later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from qsft.data.pictures import png
from qsft.data.trajectory import AGENT_ROLE, Trajectory, Turn
from qsft.data.vector_metadata import describe
from qsft.envs.manipulation.env import Manipulation
from qsft.envs.manipulation.policies import ScriptedPolicy
from qsft.envs.manipulation.tasks import STAGE_STEPS, Start, draw_start
from qsft.envs.rollout import derive_seed

if TYPE_CHECKING:
    from qsft.envs.manipulation.pictures import Pictures

ACTION_NAMES = ("x", "y", "z", "yaw", "gripper")


class ManipulationPlayer:
    """The :class:`qsft.envs.base.BlockPlayer` of the scripted policies.

    A policy with ``all_stages`` plays each stage of the task equally often, from that stage's starts and for a random
    number of steps (``STAGE_STEPS``) where there are several: so where one stage ends and the next one begins differs
    from trajectory to trajectory, and they overlap. Other policies play from the start that is tested.

    Metadata: the reset options that replay the start, ``success``, ``unstable``, ``stage`` (kind of start) and
    ``states``: one :meth:`Scene.state` an observation, joints rounded to a hundredth of a millimetre or milliradian;
    they are what :class:`qsft.envs.manipulation.pictures.Pictures` shows. ``vectors``: what the symbols mean
    (:mod:`qsft.data.vector_metadata`).
    """

    size = 32

    def __init__(self, environment: Manipulation, policy: ScriptedPolicy) -> None:
        self._environment = environment
        self._policy = policy
        gripper = [name == "gripper" for name in ACTION_NAMES]
        self._vectors = {
            "action": describe(environment.action_tokens, ACTION_NAMES, gripper),
            "observation": describe(
                environment.state_tokens, environment.features, [False] * len(environment.features)
            ),
        }

    def play(self, seed: int, block: int) -> list[Trajectory]:
        self._policy.seed(derive_seed(seed, 1, block))
        episodes = range(block * self.size, (block + 1) * self.size)
        return [self._episode(derive_seed(seed, 0, episode), episode) for episode in episodes]

    def _episode(self, seed: int, number: int) -> Trajectory:
        environment, policy, task = self._environment, self._policy, self._environment.task
        rng = np.random.default_rng(seed)
        stage, limit = task.start, task.horizon
        if policy.all_stages:
            stage = task.stages[number % len(task.stages)]
            if len(task.stages) > 1:
                limit = int(rng.integers(*STAGE_STEPS[stage], endpoint=True))
        start = draw_start(stage, task.has_target, rng)
        observation, _ = environment.reset(options=_options(start, environment.reset_options))
        game = Trajectory([Turn("user", observation)])
        states = [environment.scene.state()]
        episode, plan = policy.begin(observation)
        info: dict = {"success": False, "unstable": False}
        for step in range(limit):
            action = policy.choose(episode, plan, step, observation)
            observation, reward, terminated, truncated, end = environment.step(action)
            game.turns += [Turn(AGENT_ROLE, action, reward), Turn("user", observation)]
            states.append(states[-1] if end.get("unstable") else environment.scene.state())
            if terminated or truncated:
                info = end
                game.ended = "terminated" if terminated else "truncated"
                break
        game.ended = game.ended or "truncated"
        game.metadata = {**_options(start, environment.reset_options), "success": info["success"]}
        game.metadata |= {"unstable": info["unstable"], "stage": stage, "vectors": self._vectors}
        game.metadata["states"] = [[round(value, 5) for value in state.tolist()] for state in states]
        return game


class IllustratedPlayer:
    """Plays by state symbols, as scripted policies must, and shows pictures of the states instead of the symbols."""

    size = ManipulationPlayer.size

    def __init__(self, environment: Manipulation, policy: ScriptedPolicy) -> None:
        self._pictures = environment.pictures
        self._player = ManipulationPlayer(in_symbols(environment), policy)

    def play(self, seed: int, block: int) -> list[Trajectory]:
        return [self._illustrated(game) for game in self._player.play(seed, block)]

    def _illustrated(self, game: Trajectory) -> Trajectory:
        images = iter(shown(self._pictures, game.metadata["states"]))
        game.turns = [turn if turn.is_agent else Turn(turn.role, "\n", images=next(images)) for turn in game.turns]
        return game


def shown(pictures: Pictures, states: Sequence[Sequence[float]]) -> list[tuple[bytes, ...]]:
    """What an observation holds of each state: a PNG file for each camera."""
    drawn = pictures.of_states(states)
    return [tuple(map(png, cameras)) for cameras in (drawn if pictures.wrist else drawn[:, None])]


def in_symbols(environment: Manipulation) -> Manipulation:
    """The same task with the same bins, told in symbols."""
    state_bins, action_bins = (int(tokens.bins[0]) for tokens in (environment.state_tokens, environment.action_tokens))
    return type(environment)(state_bins=state_bins, action_bins=action_bins)


def _options(start: Start, names: tuple[str, ...]) -> dict:
    values = {name: getattr(start, name) for name in names}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
