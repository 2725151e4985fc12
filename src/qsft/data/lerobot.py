"""A reader of LeRobot v3 folders (https://huggingface.co/docs/lerobot): Parquet and MP4, without LeRobot itself.

Read are ``meta/info.json``, ``meta/tasks.parquet``, ``meta/episodes/*/*.parquet``, ``data/*/*.parquet`` and the videos.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from qsft.data.episode_images import read_image
from qsft.data.trajectory import Ended
from qsft.data.vector_episodes import VectorEpisode, VectorSpec
from qsft.data.video import frames_at
from qsft.errors import ConfigError, DataError

_PICTURES = ("video", "image")
_REWARD, _SUCCESS, _DONE, _CUT = "next.reward", "next.success", "next.done", "next.truncated"
_ROWS_A_BATCH = 1000
# Of the time between two frames: how far a frame may lie from where it should be.
_TOLERANCE = 0.25


class LeRobotSource:
    """A LeRobot v3 data set in a local folder.

    The observation is every numeric feature whose name begins with ``observation``, in the order of ``info.json``; its
    cameras are the features of type ``video`` or ``image`` (depth maps are not read). There is no observation behind an
    episode's last action. The instruction is the episode's task.

    Rewards are ``next.reward``; without that, 1 at the first step whose ``next.success`` is true; without that,
    ``final_reward`` at the last step. An episode is ``terminated`` if any ``next.success`` is true, without that column if
    its last ``next.done`` is true and its last ``next.truncated`` is not, and without those always.

    Args:
        folder: the one with ``meta/info.json`` in it.
        final_reward: of the last step of every episode, for demonstrations without rewards.

    Raises:
        ConfigError: there is nothing that says what was rewarded, or there is and ``final_reward`` is given as well.
        DataError: no such data set, of another version, or not what ``info.json`` says.
    """

    def __init__(self, folder: str | os.PathLike[str], final_reward: float | None = None) -> None:
        self.vectors = None
        self._folder = Path(folder)
        self._info = self._folder / "meta/info.json"
        info = _read_info(self._info)
        self._fps, self._frames = float(info["fps"]), info.get("total_frames") or 0
        self._video_path = info.get("video_path")
        self._features: dict[str, Mapping[str, Any]] = info["features"]
        if "action" not in self._features:
            raise DataError(f"{self._info}: field features: has no action; give a data set that was recorded with one")
        self._parts = [
            name
            for name, feature in self._features.items()
            if name.split(".")[0] == "observation" and feature["dtype"] not in (*_PICTURES, "string")
        ]
        self.cameras = tuple(
            name
            for name, feature in self._features.items()
            if feature["dtype"] in _PICTURES and not (feature.get("info") or {}).get("video.is_depth_map")
        )
        self.observation = VectorSpec.continuous(name for part in self._parts for name in self._names(part))
        self.action = VectorSpec.continuous(self._names("action"))
        rewarded = _REWARD in self._features or _SUCCESS in self._features
        if not rewarded and final_reward is None:
            raise ConfigError(
                f"{self._info}: has neither {_REWARD} nor {_SUCCESS}; give the reward of an episode's last step "
                "(--final-reward 1 if all of them succeed)"
            )
        if rewarded and final_reward is not None:
            raise ConfigError(f"{self._info}: has rewards of its own; leave --final-reward out")
        self._final_reward = final_reward
        self._tasks = self._read_tasks()
        self._episodes = self._read_episodes()
        self._done = 0

    def fraction(self) -> float:
        return self._done / self._frames if self._frames else 0.0

    def episodes(self, cameras: Sequence[str]) -> Iterator[VectorEpisode]:
        self._done = 0
        signals = [name for name in (_REWARD, _SUCCESS, _DONE, _CUT) if name in self._features]
        stored = [camera for camera in cameras if self._features[camera]["dtype"] == "image"]
        columns = ["episode_index", "frame_index", "task_index", "action", *self._parts, *signals, *stored]
        read: set[int] = set()
        for file, table in self._tables(columns):
            number = _whole(table["episode_index"][0].as_py(), f"{file}: field episode_index")
            where = f"{file}: episode {number}"
            if number not in self._episodes:
                raise DataError(f"{where}: is not in meta/episodes; download the data set again")
            if number in read:
                raise DataError(f"{where}: is there twice; download the data set again")
            length = _whole(
                self._episodes[number]["length"], f"{self._folder / 'meta/episodes'}: episode {number}: length"
            )
            _check_frames(_array(table, "frame_index", 1, where)[:, 0], length, where)
            flags = {name: _array(table, name, 1, where)[:, 0] for name in signals}
            for name, column in flags.items():
                if not np.isfinite(column).all():
                    raise DataError(f"{where}: field {name}: not known at each step; mend or drop the episode")
            observations = [_array(table, part, self._size(part), where) for part in self._parts]
            tasks = set(table["task_index"].to_pylist())
            if len(tasks) > 1:
                raise DataError(f"{where}: field task_index: {len(tasks)} tasks; split the episode, or drop it")
            task = self._tasks.get(_whole(tasks.pop(), f"{where}: field task_index"))
            yield VectorEpisode(
                where,
                np.concatenate([np.zeros((length, 0)), *observations], axis=1),
                _array(table, "action", self._size("action"), where),
                self._rewards(flags, length),
                _ended(flags),
                {camera: self._pictures(camera, number, length, table, where) for camera in cameras},
                task,
                {"source": self._folder.name, "episode": number, "fps": self._fps, "task": task},
            )
            read.add(number)
            self._done += length
        if len(read) != len(self._episodes):
            raise DataError(
                f"{self._folder / 'data'}: {len(read)} of {len(self._episodes)} episodes; download the rest too"
            )

    def _rewards(self, flags: Mapping[str, NDArray[np.float64]], steps: int) -> NDArray[np.float64]:
        if _REWARD in flags:
            return flags[_REWARD]
        rewards = np.zeros(steps)
        if _SUCCESS not in flags:
            rewards[-1] = self._final_reward
        elif flags[_SUCCESS].any():
            rewards[int(np.argmax(flags[_SUCCESS] > 0))] = 1.0
        return rewards

    def _pictures(
        self, camera: str, number: int, length: int, table: pa.Table, where: str
    ) -> Iterator[NDArray[np.uint8]]:
        where = f"{where}: field {camera}"
        if self._features[camera]["dtype"] == "image":
            return (_decoded(cell.as_py(), self._folder, where) for cell in table[camera])
        row = self._episodes[number]
        try:
            path = self._folder / str(self._video_path).format(
                video_key=camera,
                chunk_index=row[f"videos/{camera}/chunk_index"],
                file_index=row[f"videos/{camera}/file_index"],
            )
            start = float(row[f"videos/{camera}/from_timestamp"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{where}: meta/episodes does not say where its video is ({error})") from None
        times = [start + step / self._fps for step in range(length)]
        return frames_at(path, times, _TOLERANCE / self._fps, where)

    def _tables(self, columns: Sequence[str]) -> Iterator[tuple[Path, pa.Table]]:
        """The rows of each episode, with the file that they stand in."""
        for file in _parquet_files(self._folder / "data"):
            parts: list[pa.Table] = []
            with _readable(file), pq.ParquetFile(file) as parquet:
                absent = sorted(set(columns) - set(parquet.schema_arrow.names))
                if absent:
                    raise DataError(f"{file}: has no column {absent[0]}, which {self._info} promises")
                for batch in parquet.iter_batches(_ROWS_A_BATCH, columns=list(columns)):
                    indices = batch.column("episode_index").to_numpy(zero_copy_only=False)
                    edges = [0, *(np.flatnonzero(np.diff(indices)) + 1).tolist(), len(indices)]
                    for start, stop in itertools.pairwise(edges):
                        part = pa.Table.from_batches([batch.slice(start, stop - start)])
                        if parts and parts[0]["episode_index"][0] != part["episode_index"][0]:
                            yield file, pa.concat_tables(parts)
                            parts = []
                        parts.append(part)
            if parts:
                yield file, pa.concat_tables(parts)

    def _read_tasks(self) -> dict[int, str]:
        file = self._folder / "meta/tasks.parquet"
        if not file.exists():
            return {}
        with _readable(file):
            table = pq.read_table(file)
        texts = [name for name in table.column_names if name != "task_index"]
        if len(texts) != 1 or "task_index" not in table.column_names:
            raise DataError(f"{file}: columns {', '.join(table.column_names)}; it should have task_index and the task")
        return dict(zip(table["task_index"].to_pylist(), table[texts[0]].to_pylist(), strict=True))

    def _read_episodes(self) -> dict[int, dict[str, Any]]:
        episodes: dict[int, dict[str, Any]] = {}
        for file in _parquet_files(self._folder / "meta/episodes"):
            with _readable(file), pq.ParquetFile(file) as parquet:
                names = [name for name in parquet.schema_arrow.names if not name.startswith("stats/")]
                if not {"episode_index", "length"} <= set(names):
                    raise DataError(f"{file}: has no column episode_index or length; download it again")
                for row in parquet.read(columns=names).to_pylist():
                    episodes[row["episode_index"]] = row
        return episodes

    def _size(self, feature: str) -> int:
        return math.prod(self._features[feature]["shape"])

    def _names(self, feature: str) -> list[str]:
        """The dimensions' names in ``info.json``, with the feature's before them."""
        size = self._size(feature)
        names = self._features[feature].get("names")
        if isinstance(names, Mapping):
            names = next(iter(names.values()), None)
        if not isinstance(names, list) or len(names) != size:
            names = [str(i) for i in range(size)]
        return [feature] if size == 1 else [f"{feature}.{name}" for name in names]


def _read_info(path: Path) -> dict[str, Any]:
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        version, features = info["codebase_version"], info["features"]
        fps = float(info["fps"])
        if not isinstance(info.get("total_frames") or 0, int):
            raise ValueError(f"total_frames {info['total_frames']!r}")
        for name, feature in features.items():
            if not all(isinstance(size, int) for size in feature["shape"]) or not isinstance(feature["dtype"], str):
                raise ValueError(f"{name}: shape {feature['shape']!r}, dtype {feature['dtype']!r}")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; give the folder of a LeRobot data set") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not LeRobot's ({error!r:.80}); download it again") from error
    if not str(version).startswith("v3."):
        raise DataError(f"{path}: field codebase_version: {version!r}; bring it to v3.0 with LeRobot's own converter")
    if not 0 < fps < math.inf:
        raise DataError(f"{path}: field fps: {fps}; it must be positive")
    return dict(info)


def _whole(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(f"{where}: {value!r:.40} is no whole number; mend it or download the data set again")
    return value


def _check_frames(indices: NDArray[np.float64], length: int, where: str) -> None:
    if len(indices) != length or (indices != np.arange(length)).any():
        missing = sorted(set(range(length)) - set(indices.tolist()))
        told = f"frame {missing[0]} is missing" if missing else f"{len(indices)} frames"
        raise DataError(f"{where}: field frame_index: {told}, it should have {length}; mend or drop the episode")


def _ended(flags: Mapping[str, NDArray[np.float64]]) -> Ended:
    if _SUCCESS in flags:
        return "terminated" if flags[_SUCCESS].any() else "truncated"
    if _CUT in flags and flags[_CUT][-1]:
        return "truncated"
    return "terminated" if _DONE not in flags or flags[_DONE][-1] else "truncated"


def _array(table: pa.Table, column: str, size: int, where: str) -> NDArray[np.float64]:
    """A numeric column as ``[rows, size]``, nested lists laid flat; NaN where a number is missing."""
    values = table[column].combine_chunks()
    while isinstance(values, pa.ListArray | pa.LargeListArray | pa.FixedSizeListArray):
        values = values.flatten()
    try:
        flat = np.asarray(values.cast(pa.float64()).to_numpy(zero_copy_only=False))
    except pa.ArrowException:
        raise DataError(f"{where}: field {column}: of type {values.type}; it should hold numbers") from None
    if len(flat) != len(table) * size:
        raise DataError(
            f"{where}: field {column}: {len(flat)} values in {len(table)} frames of {size}; mend or drop the episode"
        )
    return flat.reshape(len(table), size)


def _decoded(cell: Any, folder: Path, where: str) -> NDArray[np.uint8]:
    """A picture that stands in a Parquet file, or beside it."""
    if not isinstance(cell, Mapping) or (cell.get("bytes") is None and not cell.get("path")):
        raise DataError(f"{where}: a frame without a picture; mend or drop the episode")
    content = cell.get("bytes")
    if content is None and not (folder / str(cell["path"])).resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{where}: {str(cell['path'])!r:.80} is outside of the data set; mend or drop the episode")
    return read_image(folder, str(cell["path"]) if content is None else content, where)


def _parquet_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*/*.parquet"))
    if not files:
        raise DataError(f"{folder}: holds no */*.parquet; download the whole data set")
    return files


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Reading errors name the file."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{file}: not a readable Parquet file ({reason:.120}); download it again") from error
