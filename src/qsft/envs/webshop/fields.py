"""Fields of the original's JSON files; what is wrong with one is said with its file and its place."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from qsft.errors import DataError

T = TypeVar("T")
_KINDS: dict[type, str] = {list: "list", dict: "object", str: "text"}


def found(folder: Path, names: Sequence[str]) -> Path:
    """The first of these files that is there.

    Raises:
        DataError: none is.
    """
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise DataError(f"{folder}: there is no {' or '.join(names)}; give the folder of the original's data")


def read_json(path: Path, kind: type[T]) -> T:
    """The content of a file.

    Raises:
        DataError: it cannot be read, or is of another kind.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}); download it again") from error
    if not isinstance(content, kind):
        raise DataError(f"{path}: must be a JSON {_KINDS[kind]}; is it the right file?")
    return content


def entry(content: Mapping[str, Any], name: str, kind: type[T], path: Path) -> T:
    """What a file says of a product; empty where it says nothing.

    Raises:
        DataError: it is of another kind.
    """
    value = content.get(name, kind())
    if not isinstance(value, kind):
        raise DataError(f"{path}: {name}: {value!r:.60} is no {_KINDS[kind]}; repair it or leave it out")
    return value


def field(row: Any, name: str, kind: type[T], where: str) -> T:
    """A field that has to be there.

    Raises:
        DataError: it is not, or is of another kind.
    """
    value = row.get(name) if isinstance(row, Mapping) else None
    if not isinstance(value, kind):
        raise DataError(f"{where}: field {name!r} is missing or is no {_KINDS[kind]}; repair it or drop the row")
    return value


def filled(row: Any, name: str, kind: type[T], where: str) -> T:
    """As :func:`field`; one that is missing, null or empty in another way is empty."""
    if isinstance(row, Mapping) and not row.get(name):
        return kind()
    return field(row, name, kind, where)


def texts(row: Any, name: str, where: str, needed: bool = True) -> tuple[str, ...]:
    """A list of texts; :func:`field`, or :func:`filled` where it is not needed.

    Raises:
        DataError: also for an element that is no text.
    """
    values = (field if needed else filled)(row, name, list, where)
    for value in values:
        if not isinstance(value, str):
            raise DataError(f"{where}: field {name!r}: {value!r:.60} is no text; repair it or leave it out")
    return tuple(values)
