"""Environments of vectors and pictures in the words of a converted data set, so that its policies can play them.

What `qsft convert` made of a data set says which symbol means which value; here the same symbols are shown and
understood while an episode is played.
"""

from __future__ import annotations

import math
import os
import string
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from numpy.typing import NDArray

from qsft.data.episode_images import read_image
from qsft.data.files import RowFile
from qsft.data.pictures import pillow
from qsft.data.rows import trajectory_from_row
from qsft.data.vector_metadata import vector_tokens
from qsft.envs.base import Environment
from qsft.errors import ConfigError, DataError


class Seen(NamedTuple):
    """One observation.

    Attributes:
        vector: [D].
        pictures: by camera, ``[height, width, 3]``, ``[height, width, 1]`` or ``[height, width]`` uint8.
        instruction: what the agent is told to do.
    """

    vector: NDArray[np.float64]
    pictures: Mapping[str, NDArray[np.uint8]]
    instruction: str = ""


class VectorEnvironment(Environment):
    """Base of environments whose texts are those of a file of `qsft convert`.

    An observation is one symbol a dimension, ``"s12 s200\\n"``, with the file's cameras as pictures of its sizes; an
    action one symbol a dimension, ``"a17 a250\\n"``, and means the middles of the bins. Values beyond the data's are
    those of the outermost bins. Any other text repeats the last action; before the first one it is the middle of the
    bounds. An episode is ``truncated`` after ``max_turns`` actions.

    Args:
        layout: of the file that the policy was trained on, or any other with the same bins.
        max_turns: actions after which an episode is over.

    Raises:
        ConfigError: no such number of actions, or cameras whose pictures differ in size.
    """

    return_range = (-math.inf, math.inf)

    def __init__(self, layout: Layout, max_turns: int) -> None:
        if isinstance(max_turns, bool) or not isinstance(max_turns, int) or max_turns < 1:
            raise ConfigError(f"{self.name}: max_steps={max_turns!r:.60}; give a whole number of at least 1")
        self.max_turns = max_turns
        self.action_space = gymnasium.spaces.Text(max_length=10_000, charset=string.printable)
        self.layout = layout
        text = gymnasium.spaces.Text(max_length=10_000, charset=string.printable)
        self.observation_space = text
        if layout.cameras:
            if len(set(layout.shapes)) > 1:
                raise ConfigError(f"{layout.data}: its cameras' pictures differ in size; convert it with --image-size")
            shape = (*layout.shapes[0], 3) if len(layout.cameras) == 1 else (len(layout.cameras), *layout.shapes[0], 3)
            image = gymnasium.spaces.Box(0, 255, shape, np.uint8)
            self.observation_space = gymnasium.spaces.Dict({"text": text, "image": image})

    @abstractmethod
    def begin(self, seed: int) -> Seen:
        """Starts an episode."""

    @abstractmethod
    def act(self, vector: NDArray[np.float64]) -> tuple[Seen, float, bool, bool, bool]:
        """One action ``[A]``: what is seen then, the reward, terminated, truncated, and whether the task is done."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts an episode, whose start ``seed`` decides.

        Raises:
            ConfigError: an option; it has none.
        """
        super().reset(seed=seed, options=options)
        self._steps = 0
        self._last = (self.layout.action.low + self.layout.action.high) / 2
        return self._shown(self.begin(int(self.np_random.integers(2**31)))), {}

    def step(self, action: str) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One action.

        Raises:
            EpisodeError: the episode is over or was never started, or ``action`` is not a ``str``.
        """
        self.check_step(action)
        meant = self.layout.action.parse(action)
        self._last = self._last if meant is None else meant
        self._steps += 1
        seen, reward, terminated, truncated, success = self.act(self._last)
        truncated = not terminated and (truncated or self._steps == self.max_turns)
        over = terminated or truncated
        self._playing = not over
        return self._shown(seen), reward, terminated, truncated, {"success": success} if over else {}

    def symbols(self, whole_actions: bool = False) -> list[str]:
        """The symbols of observations and actions, and a newline.

        Raises:
            ConfigError: whole actions are asked for; there are too many.
        """
        if whole_actions:
            raise ConfigError(f"{self.name}: there are too many actions to make each one symbol")
        states = [] if self.layout.observation is None else self.layout.observation.symbols
        return ["\n", *states, *self.layout.action.symbols]

    def _shown(self, seen: Seen) -> Any:
        layout = self.layout
        states = "" if layout.observation is None else layout.observation.text(seen.vector, clip=True)
        told = f"{seen.instruction} " if layout.instructed else ""
        text = (told + states).rstrip() + "\n"
        if not layout.cameras:
            return text
        pictures = [
            _sized(seen.pictures[camera], shape) for camera, shape in zip(layout.cameras, layout.shapes, strict=True)
        ]
        return {"text": text, "image": pictures[0] if len(pictures) == 1 else np.stack(pictures)}


class Layout:
    """What the first row of a converted file says about all of them.

    Args:
        data: the file.

    Attributes:
        data: the file.
        action, observation: the bins; ``observation`` is ``None`` where pictures are all there is.
        action_names, observation_names: of their dimensions.
        cameras: whose pictures are shown, in order.
        shapes: ``(height, width)`` of each camera's.
        instructed: whether observations begin with what the episode was to do.
        steps: actions of that row.
        source: what the data set was called.

    Raises:
        DataError: the file cannot be read, or its rows do not say what their symbols mean.
    """

    def __init__(self, data: str | os.PathLike[str]) -> None:
        self.data = data
        rows = RowFile(data)
        number, row = next(iter(rows))
        where = rows.where(number)
        first = trajectory_from_row(row, where)
        action = vector_tokens(first.metadata, "action", where)
        if action is None:
            raise DataError(f"{where}: field metadata.vectors: its actions have no dimension")
        self.action = action
        self.observation = vector_tokens(first.metadata, "observation", where)
        described = first.metadata["vectors"]
        self.action_names = tuple(described["action"]["names"])
        self.observation_names = tuple(described["observation"]["names"])
        self.cameras = tuple(described.get("cameras", ()))
        self.instructed = "instruction" in first.metadata
        self.steps = sum(1 for _ in first.agent_turns)
        self.source = str(first.metadata.get("source", ""))
        shown = first.turns[0].images
        if len(shown) != len(self.cameras):
            raise DataError(f"{where}: {len(shown)} pictures of {len(self.cameras)} cameras; convert the data again")
        self.shapes = [read_image(rows.folder, image, where).shape[:2] for image in shown]

    def check(self, what: str, actions: Any, observations: Any, cameras: Any) -> None:
        """That an environment has the dimensions and cameras of the file.

        Raises:
            ConfigError: it has others.
        """
        for kind, here, there in (
            ("actions", self.action_names, tuple(actions)),
            ("observations", self.observation_names, tuple(observations)),
        ):
            if here != there:
                raise ConfigError(
                    f"{self.data}: its {kind} have the dimensions {', '.join(here) or 'none'}, those of {what} "
                    f"{', '.join(there) or 'none'}; it is data of something else"
                )
        for camera in self.cameras:
            if camera not in cameras:
                raise ConfigError(f"{self.data}: shows a camera {camera!r}, {what} has {', '.join(cameras) or 'none'}")


def _sized(picture: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """``[height, width, 3]``, scaled as `qsft convert` scales."""
    grey = picture[..., 0] if picture.shape[2:] == (1,) else picture
    image = pillow().fromarray(grey)
    if grey.shape[:2] != shape:
        image = image.resize(shape[::-1])
    return np.asarray(image.convert("RGB"))
