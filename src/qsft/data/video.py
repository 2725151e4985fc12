"""Frames out of video files, and into them: MP4 by PyAV (FFmpeg's libraries), GIF by Pillow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsft.data.files import replacing
from qsft.data.text_files import make_folder
from qsft.errors import ConfigError, DataError

#: frames of a GIF that its palette is made from
_PALETTE_FRAMES = 16


def frames_at(path: Path, times: Sequence[float], tolerance: float, where: str) -> Iterator[NDArray[np.uint8]]:
    """The frames of a video that are shown at rising times, one after the other.

    Args:
        path: the file.
        times: seconds from its beginning.
        tolerance: how far in seconds a frame's own time may lie from the one that is asked for.
        where: how errors name what the frames belong to.

    Yields:
        ``[height, width, 3]`` uint8.

    Raises:
        ConfigError: PyAV is not installed.
        DataError: no such file, one that is not a video, or no frame at one of the times.
    """
    av = _av()
    if not path.exists():
        raise DataError(f"{where}: {path} is missing; download the videos of the data set too")
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            # To the last frame before that can be decoded by itself.
            container.seek(max(int((times[0] - tolerance) / stream.time_base), 0), stream=stream)
            decoded = container.decode(stream)
            wanted = iter(times)
            time = next(wanted)
            for frame in decoded:
                while frame.time >= time - tolerance:
                    if frame.time > time + tolerance:
                        raise DataError(f"{where}: {path} has no frame at {time:.3f} s; mend or drop the episode")
                    yield frame.to_ndarray(format="rgb24")
                    following = next(wanted, None)
                    if following is None:
                        return
                    time = following
    except (av.FFmpegError, IndexError) as error:
        raise DataError(f"{where}: {path} cannot be decoded ({error}); download it again") from error
    raise DataError(f"{where}: {path} ends before {time:.3f} s; mend or drop the episode")


def check_ending(path: str | Path) -> None:
    """Raises ConfigError for a file that :func:`write_video` does not write."""
    if Path(path).suffix not in (".mp4", ".gif"):
        raise ConfigError(f"{path}: videos end in .mp4 or .gif")


def write_video(path: str | Path, frames: Sequence[NDArray[np.uint8]], fps: float, last: float = 1.0) -> None:
    """Writes a video that appears whole or not at all; its last frame stays for a while.

    Args:
        path: ends in ``.mp4`` (H.264, which every browser plays) or ``.gif`` (which repeats); a file there is replaced.
        frames: at least one, each ``[height, width, 3]`` uint8, all of one size; of an odd side MP4 leaves the last
            row or column out.
        fps: frames a second.
        last: seconds of the last frame.

    Raises:
        ConfigError: another ending, or PyAV (MP4) or Pillow (GIF) is not installed.
        DataError: the file cannot be written.
    """
    check_ending(path)
    path = Path(path)
    write = _write_mp4 if path.suffix == ".mp4" else _write_gif
    write(path, frames, fps, last)


def _write_mp4(path: Path, frames: Sequence[NDArray[np.uint8]], fps: float, last: float) -> None:
    av = _av()
    make_folder(path)
    height, width = (side // 2 * 2 for side in frames[0].shape[:2])
    with replacing(path) as file, av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.pix_fmt, stream.height, stream.width = "yuv420p", height, width
        for frame in (*frames, *[frames[-1]] * (round(last * fps) - 1)):
            even = np.ascontiguousarray(frame[:height, :width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
        container.mux(stream.encode())


def _write_gif(path: Path, frames: Sequence[NDArray[np.uint8]], fps: float, last: float) -> None:
    try:
        from PIL import Image
    except ImportError as error:
        raise ConfigError(f"GIFs need Pillow ({error}); install it: pip install pillow") from error
    make_folder(path)
    # one palette for all: with one a frame, a line of a chart would change its colour from frame to frame
    some = [frames[i] for i in sorted({*range(0, len(frames), -(-len(frames) // _PALETTE_FRAMES)), len(frames) - 1})]
    palette = Image.fromarray(np.concatenate(some)).quantize(256, Image.Quantize.MAXCOVERAGE)
    first, *rest = (Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames)
    milliseconds = [round(1000 / fps)] * len(rest) + [round(1000 * last)]
    with replacing(path) as file:
        first.save(file, "GIF", save_all=True, append_images=rest, duration=milliseconds, loop=0)


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise ConfigError(f"videos need PyAV ({error}); install it: pip install 'qsft[video]'") from error
    return av
