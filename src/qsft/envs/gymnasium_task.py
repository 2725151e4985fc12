"""Any Gymnasium environment of vectors and pictures, in the words of a converted data set of it."""

from __future__ import annotations

import os
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from qsft.data.spaces import flat, is_picture, leaves, space_parts, unflat, vector_spec
from qsft.envs.vectors import Layout, Seen, VectorEnvironment
from qsft.errors import ConfigError


class GymnasiumTask(VectorEnvironment):
    """Any Gymnasium environment of vectors, whole numbers and pictures, in the words of a converted Minari data set.

    ``make("qsft.envs.gymnasium_task:GymnasiumTask", data="door.jsonl", id="AdroitHandDoor-v1")``. Its own rewards and
    ends; ``success`` is what the last info says under ``success`` or ``is_success``, and where it says nothing, whether
    the last reward is positive.

    Args:
        data: the file; see :class:`VectorEnvironment`.
        id: as ``gymnasium.make`` takes it, with the module that registers it where needed
            (``"gymnasium_robotics:AdroitHandDoor-v1"``); ``None``: what the Minari data set says it is evaluated in.
        max_steps: actions after which an episode is over; ``None``: the environment's own limit.

    Raises:
        ConfigError: it cannot be made, has other dimensions than the data, or no limit.
        DataError: see :class:`Layout`.
    """

    def __init__(self, data: str | os.PathLike[str], id: str | None = None, max_steps: int | None = None) -> None:
        layout = Layout(data)
        self._inner = _made(id) if id is not None else _recovered(layout)
        spec = self._inner.spec
        self.name = id or (spec.id if spec is not None else "gymnasium")
        own = spec.max_episode_steps if spec is not None else None
        limit = own if max_steps is None else max_steps
        if limit is None:
            raise ConfigError(f"{self.name}: has no limit of its own; give max_steps")
        super().__init__(layout, limit)
        what = f"environment {self.name}"
        self._parts = space_parts(self._inner.observation_space, "observation", what)
        actions = space_parts(self._inner.action_space, "action", what)
        cameras = [name for name, part in self._parts.items() if is_picture(part)]
        layout.check(what, vector_spec(actions).names, vector_spec(self._parts).names, cameras)
        self._told = next((n for n, part in self._parts.items() if isinstance(part, gymnasium.spaces.Text)), None)
        if layout.instructed and self._told is None:
            raise ConfigError(f"{data}: observations begin with an instruction, and {what} gives none")

    def begin(self, seed: int) -> Seen:
        observation, _ = self._inner.reset(seed=seed)
        return self._seen(observation)

    def act(self, vector: NDArray[np.float64]) -> tuple[Seen, float, bool, bool, bool]:
        action = unflat(vector, self._inner.action_space)
        observation, reward, terminated, truncated, info = self._inner.step(action)
        said = [info[key] for key in ("success", "is_success") if key in info]
        success = bool(said[0]) if said else float(reward) > 0
        return self._seen(observation), float(reward), bool(terminated), bool(truncated), success

    def close(self) -> None:
        self._inner.close()

    def _seen(self, observation: Any) -> Seen:
        values = dict(leaves(observation, "observation"))
        vector = flat({name: [value] for name, value in values.items()}, self._parts, 1, f"environment {self.name}")
        pictures = {camera: np.asarray(values[camera]) for camera in self.layout.cameras}
        return Seen(vector[0], pictures, str(values[self._told]) if self._told is not None else "")


def _made(id: str) -> gymnasium.Env:
    try:
        return gymnasium.make(id)
    except (gymnasium.error.Error, ImportError, TypeError, ValueError) as error:
        raise ConfigError(f"gymnasium: id={id!r:.80} cannot be made: {' '.join(str(error).split()):.200}") from error


def _recovered(layout: Layout) -> gymnasium.Env:
    from qsft.data.minari import load_minari

    if not layout.source:
        raise ConfigError(
            f"{layout.data}: does not say which Minari data set it was; give id, such as AdroitHandDoor-v1"
        )
    try:
        return load_minari(layout.source).recover_environment(eval_env=True)
    except (gymnasium.error.Error, ImportError, TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"{layout.data}: Minari cannot make the environment of {layout.source} ({reason:.200}); give its id"
        ) from error
