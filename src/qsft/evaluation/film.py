"""Films of logged episodes, with what a policy expects beside them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsft.data.episode_images import read_image
from qsft.data.trajectory import Trajectory
from qsft.data.video import check_ending, write_video
from qsft.errors import ConfigError, DataError
from qsft.evaluation.values_over_time import TurnValue, values_drawing

#: Frames a second of episodes whose metadata do not say: that of qsft's robot tasks, and of many data sets.
FPS = 10.0
_CHART_WIDTH, _CHART_HEIGHT = 560, 340


def save_film(
    trajectory: Trajectory,
    path: str | os.PathLike[str],
    size: int = 256,
    folder: str | os.PathLike[str] = ".",
    env_options: Mapping[str, Any] | None = None,
    values: Sequence[TurnValue] | None = None,
) -> None:
    """An episode as a film, in real time where the metadata say ``fps`` (else 10 frames a second).

    What is shown: the pictures of its observations, side by side where there are several; without any, a robot task's
    simulation (:func:`qsft.envs.manipulation.pictures.episode_pictures`).

    Args:
        trajectory: finished.
        path: ends in ``.mp4`` or ``.gif``; a file there is replaced as a whole.
        size: height of a picture in pixels.
        folder: what the paths of its pictures are relative to.
        env_options: see :func:`~qsft.envs.manipulation.pictures.episode_pictures`.
        values: of :func:`qsft.evaluation.values_over_time.turn_values`; drawn beside the pictures as they unfold.

    Raises:
        ConfigError: a package that is needed is not installed, or no OpenGL; a size below 16.
        DataError: there is nothing to show, or the film cannot be written.
    """
    check_ending(Path(path))
    if size < 16:
        raise ConfigError(f"size: {size}; give at least 16 pixels")
    frames = _shown(trajectory, size, Path(folder))
    if frames is None:
        from qsft.envs.manipulation.pictures import episode_pictures

        frames = list(episode_pictures(trajectory, size, env_options))
    if values is not None:
        charts = {turn: _chart(values, turn) for turn in range(len(values))}
        frames = [_beside(frame, charts[min(i, len(values) - 1)]) for i, frame in enumerate(frames)]
    write_video(Path(path), frames, _fps(trajectory))


def _fps(trajectory: Trajectory) -> float:
    """Frames a second, as the metadata say."""
    fps = trajectory.metadata.get("fps", FPS)
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps <= 1000:
        raise DataError(f"trajectory: metadata: fps {fps!r:.40} is no number of frames a second; mend it")
    return float(fps)


def _shown(trajectory: Trajectory, size: int, folder: Path) -> list[NDArray[np.uint8]] | None:
    """The pictures of the observations, or ``None`` where there are none."""
    frames = []
    for number, turn in enumerate(trajectory.turns, 1):
        if turn.images:
            row = [_resized(read_image(folder, image, f"turn {number}"), size) for image in turn.images]
            frames.append(np.concatenate(row, axis=1))
    return frames or None


def _resized(picture: NDArray[np.uint8], height: int) -> NDArray[np.uint8]:
    from PIL import Image

    width = max(round(picture.shape[1] * height / picture.shape[0]), 1)
    return np.asarray(Image.fromarray(picture).resize((width, height)))


def _chart(values: Sequence[TurnValue], turn: int) -> NDArray[np.uint8]:
    return np.asarray(values_drawing(values, f"Turn {turn + 1}", _CHART_WIDTH, _CHART_HEIGHT, until=turn).image())


def _beside(picture: NDArray[np.uint8], chart: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture and the chart on white, one next to the other, each in the middle."""
    height = max(len(picture), len(chart))
    canvas = np.full((height, picture.shape[1] + chart.shape[1], 3), 255, np.uint8)
    for part, left in ((picture, 0), (chart, picture.shape[1])):
        top = (height - len(part)) // 2
        canvas[top : top + len(part), left : left + part.shape[1]] = part
    return canvas
