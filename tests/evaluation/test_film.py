"""Films of episodes whose observations are pictures."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qsft.data import Trajectory, Turn
from qsft.data.video import frames_at, write_video
from qsft.errors import ConfigError, DataError
from qsft.evaluation.film import save_film
from qsft.evaluation.values_over_time import TurnValue


def seen(folder: Path, shades: tuple[int, ...], cameras: int = 1, **metadata) -> Trajectory:
    """Pictures of 20 by 40 pixels, each of one shade."""
    turns = []
    for i, shade in enumerate(shades):
        names = tuple(f"{camera}-{i}.png" for camera in range(cameras))
        for name in names:
            Image.new("RGB", (40, 20), (shade, shade, shade)).save(folder / name)
        turns += [Turn("user", "s\n", images=names), Turn("assistant", "a\n", 0.0)]
    return Trajectory(turns, "terminated", metadata)


def test_pictures_as_a_gif(tmp_path: Path) -> None:
    save_film(seen(tmp_path, (10, 90, 200), cameras=2), tmp_path / "a.gif", 32, tmp_path)
    with Image.open(tmp_path / "a.gif") as film:
        assert film.size == (2 * 64, 32), "side by side, 32 high"
        shades, times = [], []
        for frame in range(film.n_frames):
            film.seek(frame)
            shades.append(np.asarray(film.convert("L")).mean())
            times.append(film.info["duration"])
    assert shades == pytest.approx([10, 90, 200], abs=3)
    assert times == [100, 100, 1000]


def test_pictures_as_mp4(tmp_path: Path) -> None:
    pytest.importorskip("av")
    save_film(seen(tmp_path, (10, 90, 200), fps=20), tmp_path / "a.mp4", 33, tmp_path)
    frames = list(frames_at(tmp_path / "a.mp4", [0.0, 0.05, 0.1, 1.05], 0.01, "a.mp4"))
    assert [frame.shape for frame in frames] == [(32, 66, 3)] * 4, "even sides"
    assert [frame.mean() for frame in frames] == pytest.approx([10, 90, 200, 200], abs=4)
    with pytest.raises(DataError, match=r"ends before 1\.150 s"):
        list(frames_at(tmp_path / "a.mp4", [1.15], 0.01, "a.mp4"))


def test_values_beside_the_pictures(tmp_path: Path) -> None:
    values = [TurnValue("a\n", 0.1 * i, 0.1, 0.2, 1.0, 0.0) for i in range(3)]
    save_film(seen(tmp_path, (0, 0, 0)), tmp_path / "a.gif", 64, tmp_path, values=values)
    with Image.open(tmp_path / "a.gif") as film:
        first = np.asarray(film.convert("L")).astype(int)
        film.seek(2)
        last = np.asarray(film.convert("L")).astype(int)
    assert first.shape == (340, 128 + 560)
    assert (first[138:202, :128] < 5).all() and (first[:130, :128] > 250).all(), "in the middle, on white"
    assert (last[:, 128:] < 200).sum() > 1.1 * (first[:, 128:] < 200).sum(), "more is known at the end"


@pytest.mark.parametrize("fps", [0, -1, None, "abc", float("nan"), [10], True])
def test_a_rate_that_is_none(fps, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"metadata: fps .* is no number of frames a second"):
        save_film(seen(tmp_path, (0, 0), fps=fps), tmp_path / "a.gif", 32, tmp_path)
    assert not (tmp_path / "a.gif").exists()


def test_a_colour_stays_the_same_in_all_frames(tmp_path: Path) -> None:
    """However many others there are: a thin line of a chart beside photographs."""
    ramp = np.add.outer(np.arange(64), np.arange(64)) * 2
    frames = np.stack([np.stack([ramp, ramp.T // 2, 255 - ramp], -1) + number // 2 for number in range(12)]).astype(
        np.uint8
    )
    frames[:, 20:24, :] = (36, 89, 143)
    for number, frame in enumerate(frames):
        frame[40:44, : 5 * number + 4] = (166, 56, 73)
    write_video(tmp_path / "a.gif", list(frames), 10)
    with Image.open(tmp_path / "a.gif") as film:
        for number in range(len(frames)):
            film.seek(number)
            shown = np.asarray(film.convert("RGB")).astype(int)
            assert abs(shown[20:24] - (36, 89, 143)).max() <= 12
            assert abs(shown[40:44, :4] - (166, 56, 73)).max() <= 12


def test_nothing_to_show(tmp_path: Path) -> None:
    words = Trajectory([Turn("user", "s\n"), Turn("assistant", "a\n", 0.0)], "terminated", {"env": "wordle"})
    with pytest.raises(DataError, match="no states in its metadata, nor the name of a robot task"):
        save_film(words, tmp_path / "a.gif")
    gone = Trajectory([Turn("user", "s\n", images=("gone.png",))], "terminated")
    with pytest.raises(DataError, match=r"turn 1: image .*gone\.png: no such file"):
        save_film(gone, tmp_path / "a.gif", folder=tmp_path)
    with pytest.raises(ConfigError, match=r"size: 3; give at least 16 pixels"):
        save_film(words, tmp_path / "a.gif", 3)
    frames = [np.zeros((16, 16, 3), np.uint8)]
    with pytest.raises(ConfigError, match=r"a\.avi: videos end in \.mp4 or \.gif"):
        write_video(tmp_path / "a.avi", frames, 10)
    assert not list(tmp_path.iterdir())


def test_pyav_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match=r"videos need PyAV .*; install it: pip install 'qsft\[video\]'"):
        write_video(tmp_path / "a.mp4", [np.zeros((16, 16, 3), np.uint8)], 10)
    with pytest.raises(ConfigError, match=r"pip install 'qsft\[video\]'"):
        list(frames_at(tmp_path / "a.mp4", [0.0], 0.1, "a"))
    assert not list(tmp_path.iterdir())
