"""Text files that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

from qsft.data.files import check_replaceable, replacing
from qsft.errors import DataError


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8 ``text`` to a file, replacing what was there as a whole. Folders on the way are made.

    Raises:
        DataError: the file cannot be written; what was at ``path`` before is untouched.
    """
    target = Path(path)
    make_folder(target)
    try:
        with replacing(target) as file:
            file.write(text.encode())
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error.strerror}); choose another place") from error


def check_place(path: str | Path) -> None:
    """Raises before the work what :func:`write_text` would raise after it.

    Raises:
        DataError: a file cannot be written at ``path``.
    """
    target = Path(path)
    make_folder(target)
    check_replaceable(target)


def make_folder(path: Path) -> None:
    """Makes the folder that ``path`` will lie in.

    Raises:
        DataError: it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{path.parent}: cannot be made ({error.strerror}); choose another place") from error
