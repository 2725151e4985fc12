"""Buffers of roboverse and COG (Singh et al. 2020) from a user's checkout, and of railrl's kin: ``.npy`` files of paths.

Such a file is a pickled array of dicts, one an episode, with lists ``observations``, ``next_observations``, ``actions``,
``rewards`` and ``terminals``. A pickle can run anything when it is read; here only NumPy's arrays and plain containers
are unpickled, and anything else is refused.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from qsft.data.vector_episodes import VectorEpisode, VectorSpec, numbered
from qsft.errors import DataError

_FIELDS = ("observations", "actions", "rewards", "terminals")
# What NumPy needs to bring back an array or a number.
_HARMLESS = {
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("collections", "OrderedDict"),
}


class RoboverseSource:
    """A buffer file of roboverse, as its ``scripts/scripted_collect.py`` writes them. It is held in memory.

    An observation is a dict, whose ``uint8`` entries with two or three axes are pictures and whose numbers become one
    vector, in the order of the names; or it is a vector itself. The last of ``next_observations``, where there are any, is
    what follows the last action. Rewards are as logged: roboverse pays 1 in *every* step in which the task is solved.
    An episode is ``terminated`` if its last ``terminals`` is true; those of roboverse never are.

    Args:
        path: the ``.npy`` file.
        bound: actions are within plus and minus this, as in roboverse.

    Raises:
        DataError: no such file, another layout, or a pickle that holds more than arrays and plain containers.
    """

    def __init__(self, path: str | os.PathLike[str], bound: float = 1.0) -> None:
        self.vectors = None
        self._path = Path(path)
        self._done = 0
        self._paths = load_paths(self._path)
        first = _observations(self._paths[0], f"{self._path}: episode 0")[0]
        self.cameras = tuple(name for name, value in first.items() if is_picture(value))
        self.observation = VectorSpec.continuous(dimension_names(first))
        size = np.size(self._paths[0]["actions"][0])
        self.action = VectorSpec.continuous(action_names(size), -bound, bound)

    def fraction(self) -> float:
        return self._done / len(self._paths)

    def episodes(self, cameras: Sequence[str]) -> Iterator[VectorEpisode]:
        self._done = 0
        for number, path in enumerate(self._paths):
            where = f"{self._path}: episode {number}"
            observations = _observations(path, where)
            yield VectorEpisode(
                where,
                _stacked([vector_of(seen) for seen in observations], f"{where}: field observations"),
                _stacked([np.ravel(action) for action in path["actions"]], f"{where}: field actions"),
                _stacked([np.ravel(reward) for reward in path["rewards"]], f"{where}: field rewards").ravel(),
                "terminated" if np.any(np.asarray(path["terminals"][-1:], bool)) else "truncated",
                {camera: [_picture(seen, camera, where) for seen in observations] for camera in cameras},
                metadata={"source": self._path.name, "episode": number},
            )
            self._done += 1


def load_paths(path: Path) -> list[Mapping[str, Any]]:
    """The episodes of a buffer file, with every field present and no step missing from any.

    Raises:
        DataError: see :class:`RoboverseSource`.
    """
    try:
        with path.open("rb") as file:
            content = _unpickled(file, path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give a buffer file, NAME.npy") from None
    paths = list(content) if isinstance(content, np.ndarray) and content.ndim == 1 else []
    if not paths:
        raise DataError(f"{path}: holds no list of episodes; give a buffer file as roboverse collects them")
    for number, episode in enumerate(paths):
        where = f"{path}: episode {number}"
        for field in _FIELDS:
            if not isinstance(episode, Mapping) or field not in episode:
                raise DataError(f"{where}: field {field}: missing; give a buffer file as roboverse collects them")
            if not _is_list(episode[field]):
                raise DataError(f"{where}: field {field}: {episode[field]!r:.40} is no list of one a step; mend it")
        if episode.get("next_observations") is not None and not _is_list(episode["next_observations"]):
            raise DataError(f"{where}: field next_observations: is no list of one a step; mend it")
        lengths = {field: len(episode[field]) for field in _FIELDS}
        if not lengths["actions"] or len(set(lengths.values())) > 1:
            told = ", ".join(f"{count} {field}" for field, count in lengths.items())
            raise DataError(f"{where}: {told}; they must be as many, and at least one; mend or drop the episode")
    return paths


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim > 0)


class _ArraysOnly(pickle.Unpickler):
    """Finds nothing but what arrays are made of, so that reading a file runs no code of its author's."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        super().__init__(file, encoding="latin1")
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core.", "numpy._core.")  # its name before NumPy 2
        if (module, name) in _HARMLESS or (module == "numpy.dtypes" and name.endswith("DType")):
            return super().find_class(module, name)
        raise DataError(
            f"{self._path}: its pickle asks for {module}.{name}, and only NumPy arrays, numbers, lists and dicts are read "
            "(a pickle can run anything); write the file again with nothing else in it"
        )


def _unpickled(file: BinaryIO, path: Path) -> Any:
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        _, _, kind = read(file)
    except ValueError as error:
        raise DataError(f"{path}: not a .npy file ({error}); give a buffer file, NAME.npy") from None
    if not kind.hasobject:
        raise DataError(f"{path}: an array of {kind}, not of episodes; give a buffer file as roboverse collects them")
    try:
        return _ArraysOnly(file, path).load()
    except DataError:
        raise
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, ImportError, LookupError) as error:
        raise DataError(f"{path}: a damaged pickle ({error!r:.80}); copy the file again") from None


def _observations(path: Mapping[str, Any], where: str) -> list[Mapping[str, Any]]:
    """One dict an observation; a vector is one that is called ``observation``."""
    following = path.get("next_observations")
    seen = [*path["observations"], *([following[-1]] if following is not None and len(following) else [])]
    dicts = [one if isinstance(one, Mapping) else {"observation": one} for one in seen]
    if any(list(one) != list(dicts[0]) for one in dicts):
        raise DataError(f"{where}: field observations: entries with other names than the first one's; mend the episode")
    if any(not isinstance(name, str) for name in dicts[0]):
        raise DataError(f"{where}: field observations: an entry whose name is no text; mend the episode")
    return [dict(sorted(one.items())) for one in dicts]


def is_picture(value: Any) -> bool:
    """Whether a part of an observation is a picture: ``uint8`` with two or three axes."""
    return isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim in (2, 3)


def action_names(size: int) -> list[str]:
    """The names of an action's dimensions."""
    return [f"action[{i}]" for i in range(size)]


def dimension_names(seen: Mapping[str, Any]) -> list[str]:
    """The names of :func:`vector_of`'s dimensions."""
    names: list[str] = []
    for name, value in seen.items():
        names += numbered(name, 0 if is_picture(value) else np.size(value))
    return names


def _picture(seen: Mapping[str, Any], camera: str, where: str) -> NDArray[np.uint8]:
    if not is_picture(seen.get(camera)):
        raise DataError(f"{where}: field {camera}: a frame is missing, or not of type uint8; mend or drop the episode")
    return np.asarray(seen[camera])


def vector_of(seen: Mapping[str, Any]) -> NDArray[Any]:
    """The numbers of an observation whose parts are sorted by name, ``[D]``."""
    parts = [np.ravel(value) for value in seen.values() if not is_picture(value)]
    return np.concatenate(parts) if parts else np.zeros(0)


def _stacked(rows: Sequence[NDArray[Any]], where: str) -> NDArray[np.float64]:
    sizes = {len(row) for row in rows}
    if len(sizes) > 1:
        raise DataError(f"{where}: {min(sizes)} to {max(sizes)} dimensions a step; mend or drop the episode")
    try:
        stacked = np.stack(rows)
        if stacked.dtype.kind == "c":
            raise TypeError("complex")
        return stacked.astype(np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{where}: something else than numbers; mend or drop the episode") from None
