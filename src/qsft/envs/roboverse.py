"""The tasks of roboverse (PyBullet, Singh et al. 2020, "COG") from a user's checkout, in the words of a converted buffer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from qsft.data.roboverse import action_names, dimension_names, is_picture, vector_of
from qsft.envs.vectors import Layout, Seen, VectorEnvironment
from qsft.errors import ConfigError


class RoboverseTask(VectorEnvironment):
    """A task of roboverse, for policies of its buffer files.

    ``make("qsft.envs.roboverse:RoboverseTask", data="task.jsonl", task="Widow250DoubleDrawerGraspNeutral-v0")``, with the
    checkout on ``PYTHONPATH``. Rewards are roboverse's: 1 in every step in which the task is solved. It never ends an
    episode, so all are ``truncated``, and ``success`` is whether the task is solved at the end. roboverse draws from
    NumPy's global generator, which is seeded for its ``reset`` and set back afterwards.

    It holds one simulation a process: play with ``--batch-size 1``.

    Args:
        data: the file that `qsft convert --from roboverse` made; see :class:`VectorEnvironment`.
        task: as ``roboverse.make`` takes it.
        max_steps: actions of an episode; ``None``: as many as the first episode of ``data`` has.

    Raises:
        ConfigError: roboverse cannot be imported, knows no such task or is in use; or the data are of something else.
        DataError: see :class:`Layout`.
    """

    _in_use: ClassVar[bool] = False

    def __init__(self, data: str | os.PathLike[str], task: str, max_steps: int | None = None) -> None:
        self.name = task
        self._made = False
        if RoboverseTask._in_use:
            raise ConfigError(
                f"{task}: roboverse has one simulation a process, and it is in use; play one episode at a time "
                "(--batch-size 1), or close the other environment"
            )
        layout = Layout(data)
        super().__init__(layout, layout.steps if max_steps is None else max_steps)
        self.return_range = (0.0, float(self.max_turns))
        self._inner = _made(task)
        RoboverseTask._in_use = self._made = True
        try:
            seen = self._told(self._inner.get_observation())
            actions = action_names(self._inner.action_space.shape[0])
            cameras = [name for name, value in seen.items() if is_picture(value)]
            layout.check(f"task {task}", actions, dimension_names(seen), cameras)
        except BaseException:
            self.close()
            raise

    def begin(self, seed: int) -> Seen:
        state = np.random.get_state()
        np.random.seed(seed)
        try:
            return self._seen(self._inner.reset())
        finally:
            np.random.set_state(state)

    def act(self, vector: NDArray[np.float64]) -> tuple[Seen, float, bool, bool, bool]:
        observation, reward, done, _ = self._inner.step(vector)
        return self._seen(observation), float(reward), bool(done), False, float(reward) > 0

    def close(self) -> None:
        """Lets another environment have the simulation."""
        if self._made:
            RoboverseTask._in_use = self._made = False

    def _told(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """As roboverse's ``scripted_collect.py`` logs it, its parts sorted by name."""
        side = self._inner.observation_img_dim
        image = np.reshape(np.uint8(observation["image"] * 255.0), (side, side, 3))
        return dict(sorted({**observation, "image": image}.items()))

    def _seen(self, observation: Mapping[str, Any]) -> Seen:
        told = self._told(observation)
        return Seen(vector_of(told), {camera: told[camera] for camera in self.layout.cameras})


def _made(task: str) -> Any:
    """The environment without the wrappers of whatever version of gym there is."""
    try:
        import roboverse

        make = roboverse.make
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"{task}: roboverse cannot be imported ({error}); put the checkout of avisingh599/roboverse on PYTHONPATH, "
            "with what its requirements name (gym, pybullet)"
        ) from error
    try:
        return make(task, gui=False, transpose_image=False).unwrapped
    # What gym raises for a name that it does not know depends on its version.
    except Exception as error:
        raise ConfigError(f"{task}: roboverse cannot make it: {' '.join(str(error).split()):.200}") from error
