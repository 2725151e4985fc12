"""Gymnasium spaces as vectors and pictures: nested dicts and tuples laid out flat, and actions back again."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from qsft.data.vector_episodes import VectorSpec, numbered
from qsft.errors import DataError

_WHOLE = (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
#: whole numbers of a box with at most this many values are told apart one by one
_MOST_VALUES = 256


def space_parts(space: gymnasium.Space, kind: str, where: str) -> dict[str, gymnasium.Space]:
    """The leaves of a space by their path; a space that is a leaf itself goes by ``kind``.

    Raises:
        DataError: one of them is neither numbers nor a text; ``where`` names what it belongs to.
    """
    parts = dict(leaves(space, kind))
    for name, part in parts.items():
        if not isinstance(part, (spaces.Box, spaces.Text, *_WHOLE)):
            raise DataError(f"{where}: field {name}: cannot read a {type(part).__name__} space")
    return parts


def leaves(value: Any, kind: str, path: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested dicts and tuples (of values, or of spaces) with their paths, ``hand.joints`` or ``0.camera``."""
    if isinstance(value, (spaces.Dict, Mapping)):
        items: Iterable[tuple[Any, Any]] = sorted(value.items())
    elif isinstance(value, (spaces.Tuple, tuple)):
        items = enumerate(value)
    else:
        yield path or kind, value
        return
    for key, part in items:
        name = str(key).replace("/", "_")
        yield from leaves(part, kind, f"{path}.{name}" if path else name)


def is_picture(space: gymnasium.Space) -> bool:
    """Whether a part is a box of ``uint8`` with two or three axes."""
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) in (2, 3)


def _vectors(parts: Mapping[str, gymnasium.Space]) -> dict[str, gymnasium.Space]:
    return {
        name: space for name, space in parts.items() if not is_picture(space) and not isinstance(space, spaces.Text)
    }


def vector_spec(parts: Mapping[str, gymnasium.Space]) -> VectorSpec:
    """Names, bounds and kinds of the dimensions of all parts but pictures and texts, one part after the other."""
    names: list[str] = []
    low: list[float] = []
    high: list[float] = []
    values: list[int] = []
    for name, space in _vectors(parts).items():
        if isinstance(space, spaces.Box):
            ends = space.low.ravel(), space.high.ravel()
            counts = np.zeros(len(ends[0]), np.int64)
            if _is_whole(space):
                apart = np.array([int(high) - int(low) + 1 for low, high in zip(*ends, strict=True)], np.float64)
                counts = np.where(apart <= _MOST_VALUES, apart, 0).astype(np.int64)
        elif isinstance(space, spaces.Discrete):
            ends, counts = (np.array([space.start]), np.array([space.start + space.n - 1])), np.array([space.n])
        elif isinstance(space, spaces.MultiDiscrete):
            counts = space.nvec.ravel()
            ends = space.start.ravel(), space.start.ravel() + counts - 1
        else:
            assert isinstance(space, spaces.MultiBinary)
            counts = np.full(math.prod(space.shape or ()), 2)
            ends = np.zeros(len(counts)), np.ones(len(counts))
        names += numbered(name, len(counts))
        low += np.asarray(ends[0], np.float64).tolist()
        high += np.asarray(ends[1], np.float64).tolist()
        values += counts.tolist()
    return VectorSpec(tuple(names), np.array(low), np.array(high), np.array(values, np.int64))


def flat(
    values: Mapping[str, Any], parts: Mapping[str, gymnasium.Space], entries: int, where: str
) -> NDArray[np.float64]:
    """The vector of each step, ``[entries, D]``: all parts but pictures and texts, one after the other."""
    columns = [np.zeros((entries, 0))]
    for name, space in _vectors(parts).items():
        array = np.asarray(values[name], np.float64)
        size = _size(space)
        if len(array) != entries or array.size != entries * size:
            raise DataError(f"{where}: field {name}: shape {array.shape} for {entries} entries of {size} values")
        columns.append(array.reshape(entries, size))
    return np.concatenate(columns, axis=1)


def unflat(vector: ArrayLike, space: gymnasium.Space) -> Any:
    """The value of a space that :func:`flat` lays out as ``vector``; whole numbers are rounded to the nearest.

    Args:
        vector: [D], as many dimensions as the space has.
        space: of boxes, whole numbers, and dicts and tuples of these.
    """
    return _filled(space, iter(np.asarray(vector, np.float64).tolist()))


def _filled(space: gymnasium.Space, numbers: Iterator[float]) -> Any:
    if isinstance(space, spaces.Dict):
        return {name: _filled(part, numbers) for name, part in sorted(space.items())}
    if isinstance(space, spaces.Tuple):
        return tuple(_filled(part, numbers) for part in space)
    if isinstance(space, spaces.Discrete):
        return np.int64(round(next(numbers)))
    shaped = np.fromiter(itertools.islice(numbers, _size(space)), np.float64).reshape(space.shape or ())
    return (np.rint(shaped) if _is_whole(space) else shaped).astype(space.dtype)


def _is_whole(space: gymnasium.Space) -> bool:
    return not isinstance(space, spaces.Box) or np.issubdtype(space.dtype, np.integer)


def _size(space: gymnasium.Space) -> int:
    return 1 if isinstance(space, spaces.Discrete) else math.prod(space.shape or ())
