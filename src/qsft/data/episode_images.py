"""Pictures of trajectories, as files beside the file of trajectories."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from qsft.data.pictures import picture_folder, pillow, read_picture
from qsft.errors import DataError


class ImageFolder:
    """The folder ``NAME-images`` beside ``NAME.jsonl``, which appears whole or not at all.

    Pictures are gathered in a hidden folder, which takes its name when the block ends without an error.

    Args:
        data_file: the file of trajectories.
        size: pixels of a side that pictures are resized to; ``None``: as they are.

    Raises:
        DataError: at the first picture: the folder is there already, or cannot be written.
    """

    def __init__(self, data_file: Path, size: int | None = None) -> None:
        self._size = size
        self.folder = picture_folder(data_file)
        self._gathered = data_file.with_name(f".{data_file.stem}-images.{os.getpid()}.tmp")
        self._begun = False

    def __enter__(self) -> ImageFolder:
        return self

    def check_free(self) -> None:
        """Raises DataError where the folder is there already."""
        if self.folder.exists():
            raise DataError(f"{self.folder}: exists already; delete it or choose another file")

    def save(self, picture: NDArray[np.uint8], name: str, where: str) -> str:
        """Saves a picture, as PNG.

        Args:
            picture: ``[height, width, 3]``, ``[height, width, 1]`` or ``[height, width]``, uint8.
            name: path inside the folder, ending in ``.png``.
            where: how errors name what it belongs to.

        Returns:
            its path, relative to the folder of the file of trajectories.
        """
        if picture.dtype != np.uint8 or not (picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] in (1, 3))):
            raise DataError(
                f"{where}: a picture of shape {picture.shape} and type {picture.dtype}; it must be "
                "[height, width, 3] or [height, width], uint8"
            )
        if not self._begun:
            self.check_free()
        self._begun = True
        path = self._gathered / name
        image = pillow().fromarray(picture.squeeze(2) if picture.shape[2:] == (1,) else picture)
        if self._size is not None:
            image = image.resize((self._size, self._size))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path, "PNG")
        except OSError as error:
            raise DataError(f"{path}: cannot be written ({error.strerror or error}); choose another place") from error
        return f"{self.folder.name}/{name}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._begun:
            return
        if kind is None:
            os.replace(self._gathered, self.folder)
        else:
            shutil.rmtree(self._gathered, ignore_errors=True)


def read_image(folder: Path, image: str | bytes, where: str) -> NDArray[np.uint8]:
    """A picture of a trajectory, ``[height, width, 3]`` uint8.

    Args:
        folder: what a path is relative to.
        image: of a :class:`Turn`: a path, or the content of a file.
        where: how errors name what it belongs to.

    Raises:
        DataError: it is missing or not an image.
        ConfigError: Pillow is not installed.
    """
    try:
        return np.asarray(read_picture(image if isinstance(image, bytes) else str(folder / image)))
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
