"""Pictures of trajectories as files: read as colours, whatever the format, and written."""

from __future__ import annotations

import dataclasses
import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from qsft.data.trajectory import Trajectory
from qsft.errors import ConfigError, DataError

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")
_PNG_BEGINS = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"  # then width and height, four bytes each
_ORIENTATION = 0x0112  # of the EXIF tags; from 5 on, height and width change places


def picture_size(picture: str | bytes) -> tuple[int, int]:
    """``(height, width)`` of what :func:`read_picture` returns, from the file's header alone.

    Raises:
        DataError: there is no such file, or it is no image.
    """
    # A policy asks of each picture of an episode at every turn, and Pillow takes a fifth of a millisecond to open one.
    if isinstance(picture, bytes) and picture[:16] == _PNG_BEGINS and len(picture) > 24:
        width, height = struct.unpack_from(">II", picture, 16)
        return height, width

    def size(opened: Image) -> tuple[int, int]:
        # of a TIFF Pillow tells the size of the upright picture
        turned = _tells_orientation(opened) and opened.format != "TIFF" and opened.getexif().get(_ORIENTATION, 1) >= 5
        return (opened.width, opened.height) if turned else (opened.height, opened.width)

    return _of_opened(picture, size)


def read_picture(picture: str | bytes) -> Image:
    """A picture in RGB, 8 bits a colour, as a person would see it on white paper.

    Upright where its EXIF tags say how it was held; what is transparent is white; 16-bit greys are scaled to 8 bits. Of
    an animation the first frame.

    Args:
        picture: path of a file, or the content of one.

    Raises:
        DataError: there is no such file, it is no image, it is damaged, or its numbers are no colours (32 bits or
            fractions, such as depths).
        ConfigError: Pillow is not installed.
    """
    return _of_opened(picture, _as_seen)


def _tells_orientation(opened: Image) -> bool:
    """Cameras write no PNG, whose tags may stand behind the pixels: to look for them would read all of it."""
    return opened.format != "PNG"


def _as_seen(opened: Image) -> Image:
    from PIL import Image, ImageOps

    upright = ImageOps.exif_transpose(opened) if _tells_orientation(opened) else opened
    if upright.mode.startswith("I;16") or (upright.mode == "I" and opened.format == "PNG"):
        return Image.fromarray((np.asarray(upright).astype(np.uint32) >> 8).astype(np.uint8)).convert("RGB")
    if upright.mode in ("I", "F"):
        raise DataError(
            f"numbers of mode {upright.mode} are no colours, and nothing says which is black and which white; scale "
            "them to 8 bits"
        )
    if upright.mode in ("RGBA", "LA", "La", "PA", "RGBa") or "transparency" in upright.info:
        upright = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright).convert("RGB")
    return upright.convert("RGB")


def _of_opened(picture: str | bytes, use: Callable[[Image], T]) -> T:
    library = pillow()
    name = "a picture in memory" if isinstance(picture, bytes) else f"image {picture}"
    if isinstance(picture, str) and not Path(picture).is_file():
        raise DataError(f"{name}: no such file; paths are relative to the file of trajectories")
    try:
        with library.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture) as opened:
            return use(opened)
    except MemoryError:
        raise
    except Exception as error:  # of a damaged file each format raises what it likes
        unknown = isinstance(error, library.UnidentifiedImageError)
        why = "no known format of images" if unknown else " ".join(str(error).split())
        raise DataError(f"{name}: cannot be read ({why}); mend or drop it") from None


def png(picture: np.ndarray) -> bytes:
    """A picture ``[height, width, 3]`` uint8 as the content of a PNG file: without loss, the same for the same pixels."""
    file = io.BytesIO()
    pillow().fromarray(np.ascontiguousarray(picture)).save(file, "PNG", compress_level=1)
    return file.getvalue()


def picture_folder(data_file: Path) -> Path:
    """Where the pictures of a file of trajectories are written: ``NAME-images`` beside it."""
    return data_file.with_name(f"{data_file.stem}-images")


def save_pictures(trajectory: Trajectory, folder: Path) -> Trajectory:
    """Writes the pictures that a played episode holds in memory, as ``EPISODE-TURN-NUMBER.png``.

    Args:
        trajectory: with its number in ``metadata["episode"]``.
        folder: of :func:`picture_folder`; made if there is none.

    Returns:
        the trajectory with their paths, relative to the folder of the file of trajectories.

    Raises:
        DataError: they cannot be written.
    """
    turns = []
    for number, turn in enumerate(trajectory.turns, 1):
        images: list[str | bytes] = []
        for k, image in enumerate(turn.images, 1):
            if isinstance(image, bytes):
                path = folder / f"{trajectory.metadata['episode']:07d}-{number:03d}-{k}.png"
                try:
                    folder.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(image)
                except OSError as error:
                    raise DataError(f"{path}: cannot be written ({error.strerror}); free some space") from None
                image = f"{folder.name}/{path.name}"
            images.append(image)
        turns.append(dataclasses.replace(turn, images=tuple(images)) if images else turn)
    return Trajectory(turns, trajectory.ended, trajectory.metadata)


def with_paths(trajectory: Trajectory, folder: Path) -> Trajectory:
    """The trajectory with the paths of its images resolved, which are relative to ``folder``."""
    if not any(turn.images for turn in trajectory.turns):
        return trajectory
    turns = [
        dataclasses.replace(
            turn,
            images=tuple(str((folder / image).resolve()) if isinstance(image, str) else image for image in turn.images),
        )
        if turn.images
        else turn
        for turn in trajectory.turns
    ]
    return Trajectory(turns, trajectory.ended, trajectory.metadata)


def pillow() -> Any:
    """Pillow's module ``Image``; :class:`ConfigError` where it is not installed."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ConfigError(f"images need Pillow ({error}); install it: pip install 'qsft[vision]'") from error
    return Image
