"""Scripted players: one that is meant to fail often, for data, and the ceiling and the floor.

They read what any player reads, the texts. Nothing is kept between calls: what a player draws for an episode follows
from the seed and the episode's first observation, what it draws for a step from these and the number of the step.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from qsft.envs.manipulation.env import Manipulation
from qsft.envs.manipulation.scene import ACTION_SCALE
from qsft.envs.manipulation.skills import Manner, Seen, Skill, action_of, lift, press, pull, put, rest, solve
from qsft.envs.manipulation.tasks import OPENED
from qsft.errors import ConfigError, DataError

if TYPE_CHECKING:
    from qsft.data.trajectory import Trajectory

_EXACT = Manner(np.zeros(3), np.array([0.40, 0.0, 0.25]))


@dataclass(frozen=True)
class Plan:
    """What a player is up to in an episode.

    Args:
        skill: what it does at each step.
        manner: how.
        noise: standard deviation of what is added to each of x, y, z and yaw of an action, which are in [-1, 1].
        slip: probability that the gripper does the contrary.
    """

    skill: Skill
    manner: Manner = _EXACT
    noise: float = 0.0
    slip: float = 0.0


class ScriptedPolicy(ABC):
    """Plays by a plan that it makes at the beginning of an episode.

    Args:
        environment: the task to be played; its bins are used, its state is not.

    Attributes:
        all_stages: its data begin at all stages of the task, not at the start that is tested.

    Raises:
        ConfigError: an environment whose actions are no texts.
    """

    name: str
    all_stages = False

    def __init__(self, environment: Manipulation) -> None:
        if not environment.in_words:
            raise ConfigError(f"{self.name}: says texts; make the environment with observation='tokens' or 'picture'")
        self.task = environment.task
        self.state_tokens = environment.state_tokens
        self.action_tokens = environment.action_tokens
        self.seed(0)

    def seed(self, seed: int) -> None:
        """Restarts the random generators."""
        self._seed = seed

    @abstractmethod
    def plan(self, seen: Seen, rng: np.random.Generator) -> Plan:
        """The plan of an episode that begins with ``seen``."""

    def begin(self, observation: str) -> tuple[int, Plan]:
        """A number that tells the episode from others, and its plan.

        Raises:
            DataError: that is no observation of the environment.
        """
        episode = zlib.crc32(observation.encode())
        return episode, self.plan(self._seen(observation), np.random.default_rng([self._seed, episode]))

    def choose(self, episode: int, plan: Plan, step: int, observation: str) -> str:
        """The action of one step. Raises as :meth:`begin` does."""
        action = action_of(plan.skill(self._seen(observation), plan.manner), ACTION_SCALE)
        if plan.noise or plan.slip:
            rng = np.random.default_rng([self._seed, episode, step])
            action[:4] = np.clip(action[:4] + rng.normal(0.0, plan.noise, 4), -1.0, 1.0)
            if rng.random() < plan.slip:
                action[4] = -action[4]
        return self.action_tokens.text(action) + "\n"

    def act(self, histories: Sequence[Trajectory]) -> list[str]:
        """One action a history, ``"a17 a250 a3 a128 a1\\n"``.

        Raises:
            DataError: a history that is no episode of the environment.
        """
        actions = []
        for history in histories:
            episode, plan = self.begin(history.turns[0].text)
            step = sum(turn.is_agent for turn in history.turns)
            actions.append(self.choose(episode, plan, step, history.turns[-1].text))
        return actions

    def _seen(self, observation: str) -> Seen:
        features = self.state_tokens.parse(observation)
        if features is None:
            raise DataError(
                f"{self.task.name}: {observation!r:.80} is no observation; give the policy the environment's options"
            )
        return Seen.of(features)


class OraclePolicy(ScriptedPolicy):
    """The ceiling: all stages one after the other, without noise."""

    name = "oracle"

    def plan(self, seen: Seen, rng: np.random.Generator) -> Plan:
        return Plan({"place": put, "drawer": pull}.get(self.task.name, solve))


class GraspOnlyPolicy(ScriptedPolicy):
    """The floor of the tasks with stages: grasps as if the drawer were open."""

    name = "grasp-only"

    def plan(self, seen: Seen, rng: np.random.Generator) -> Plan:
        return Plan(lift)


class NoisyPolicy(ScriptedPolicy):
    """The behaviour policy: does one stage, clumsily.

    In ``WRONG`` of its episodes it does something else than the stage that is due. In each it misjudges where to reach
    by a normal error, the same all episode long (``MISSES``: metres in x and y, a quarter of it in z), draws one of
    ``NOISES`` for its movements, and its gripper slips in ``SLIP`` of the steps. Having done its part it goes to a
    random place above the table or the drawer, and stays there. So it never solves a task of several stages from the
    start; each stage alone it solves in 30% to 45% of its episodes, which is what the errors are chosen for.
    """

    name = "noisy"
    all_stages = True
    WRONG = 0.15
    MISSES: ClassVar[dict[str, float]] = {"lift": 0.018, "put": 0.008, "pull": 0.019, "press": 0.018, "take": 0.004}
    NOISES = (0.1, 0.2, 0.4)
    SLIP = 0.02

    def plan(self, seen: Seen, rng: np.random.Generator) -> Plan:
        stage, skill = self._due(seen)
        if rng.random() < self.WRONG:
            others = [other for other in (lift, pull, press, rest) if other is not skill]
            skill = others[rng.integers(len(others))]
        error = self.MISSES[stage]
        miss = np.array([*rng.normal(0.0, error, 2), rng.normal(0.0, error / 4)])
        resting = rng.uniform((0.26, -0.22, 0.18), (0.50, 0.12, 0.30))
        return Plan(skill, Manner(miss, resting), float(rng.choice(self.NOISES)), self.SLIP)

    def _due(self, seen: Seen) -> tuple[str, Skill]:
        """The first stage that is not done yet."""
        if self.task.name == "place":
            return "put", put
        if self.task.name == "pick":
            return "lift", lift
        if seen.locked:
            return "press", press
        return ("take", lift) if seen.drawer > OPENED - 0.03 else ("pull", pull)
