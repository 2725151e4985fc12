"""Pictures: what is to be seen in them, and what is said where none can be drawn."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qsft.data.trajectory import Trajectory, Turn
from qsft.envs.manipulation import Pick, Place
from qsft.envs.manipulation import pictures as module
from qsft.envs.manipulation.pictures import Pictures, save_gif
from qsft.envs.manipulation.scene import Scene, Start
from qsft.errors import ConfigError, DataError

START = Start((0.30, 0.10, 0.30, 0.0), (0.40, -0.05, 0.02, 0.0))


def red(picture: np.ndarray) -> tuple[float, float, int]:
    """Mean row and column of the pixels that are red, and their number."""
    pixels = picture.astype(int)
    rows, columns = np.nonzero((pixels[..., 0] > 90) & (pixels[..., 0] > 2 * pixels[..., 1]))
    return float(rows.mean()), float(columns.mean()), len(rows)


@pytest.mark.usefixtures("opengl")
def test_the_cube_is_seen_where_it_is() -> None:
    scene, pictures = Scene(), Pictures(64)
    scene.place(START)
    before = pictures.of(scene)
    assert (before.shape, before.dtype) == ((64, 64, 3), np.uint8)
    assert pictures.shape == before.shape
    scene.place(Start(START.effector, (0.40, 0.10, 0.02, 0.0)))
    after = pictures.of(scene)
    row, column, _ = red(before)
    assert red(after)[1] - column == pytest.approx(13, abs=3), "y is to the right"
    scene.place(Start(START.effector, (0.50, -0.05, 0.02, 0.0)))
    assert red(pictures.of(scene))[0] > row + 3, "x is towards the camera"


@pytest.mark.usefixtures("opengl")
def test_a_locked_drawer_and_a_target_are_seen() -> None:
    scene, pictures = Scene(), Pictures(64)
    scene.place(START)
    free = pictures.of(scene)
    scene.place(Start(START.effector, START.cube, locked=True))
    assert red(pictures.of(scene))[2] > red(free)[2] + 5
    scene.place(Start(START.effector, START.cube, target=(0.40, 0.10)))
    assert (np.abs(pictures.of(scene).astype(int) - free).max(-1) > 20).sum() > 3


@pytest.mark.usefixtures("opengl")
def test_pictures_of_any_number_of_sizes_are_the_same_but_for_their_size() -> None:
    """Each size has an OpenGL context of its own; to give one back would blacken another's pictures."""
    scene = Scene()
    scene.place(START)
    light = {size: Pictures(size).of(scene).mean() for size in (64, 80, 96, 112, 128, 144, 160)}
    assert min(light.values()) > 5
    assert max(light.values()) < min(light.values()) * 1.2
    assert Pictures(64).of(scene).mean() == light[64]


@pytest.mark.usefixtures("opengl")
def test_environments_that_show_pictures() -> None:
    env = Place(observation="image", image_size=48, wrist=True)
    observation, _ = env.reset(seed=1)
    assert env.observation_space.contains(observation)
    assert observation.shape == (2, 48, 48, 3)
    assert (observation[0] != observation[1]).any()
    after, reward, *_ = env.step(np.array([1.0, 0, 0, 0, 0]))
    assert reward == 0.0
    assert (after != observation).any(axis=(1, 2, 3)).all()
    other = Pick(observation="image", image_size=48).reset(seed=1)[0]
    assert other.shape == (48, 48, 3)


@pytest.mark.usefixtures("opengl")
def test_stored_states_make_the_same_pictures_and_a_film(tmp_path: Path) -> None:
    scene, pictures = Scene(), Pictures(64)
    scene.place(START)
    seen, states = [], []
    for move in (0.0, 1.0, -1.0):
        scene.step(np.array([move, move, 0, 0, 1.0]))
        seen.append(pictures.of(scene))
        states.append([round(value, 5) for value in scene.state().tolist()])
    shown = pictures.of_states(states)
    assert shown.shape == (3, 64, 64, 3)
    assert (np.abs(shown.astype(int) - np.stack(seen)).max(-1) > 8).mean() < 0.01
    for success, frames in ((False, 3), (True, 4)):
        save_gif(Trajectory([], "truncated", {"states": states, "success": success}), tmp_path / "a.gif", size=64)
        with Image.open(tmp_path / "a.gif") as film:
            assert (film.size, film.info["duration"]) == ((64, 64), 100)
            assert film.n_frames == frames
    with pytest.raises(DataError, match="state: 2 numbers"):
        pictures.of_states([[0.0, 1.0]])


def test_a_film_needs_states(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no states in its metadata, nor the name of a robot task; collect it with"):
        save_gif(Trajectory([Turn("user", "s1\n")]), tmp_path / "a.gif")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["garbage", "wgl"])
def test_an_unknown_backend(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", value)
    module._canvas.cache_clear()
    with pytest.raises(ConfigError, match=f"MUJOCO_GL='{value}' is unknown; use one of egl, osmesa, glfw"):
        Pick(observation="image")


@pytest.mark.parametrize("value", ["garbage", "osmesa", "EGL"])
def test_who_draws_nothing_does_not_mind_what_draws(value: str) -> None:
    """In a process of its own: MuJoCo reads the variable when it is imported."""
    code = "import os; from qsft.envs import make; make('pick').reset(seed=0); print(os.environ['MUJOCO_GL'])"
    environment = {**os.environ, "MUJOCO_GL": value}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.returncode) == (f"{value}\n", 0), done.stderr


@pytest.mark.parametrize("backend", ["osmesa", "egl"])
def test_no_opengl(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", backend)
    monkeypatch.setitem(sys.modules, f"mujoco.{backend}", None)
    module._canvas.cache_clear()
    with pytest.raises(
        ConfigError, match=f"no OpenGL by {backend}.*apt-get install libegl1.*observation='state'"
    ) as caught:
        Pick(observation="image")
    assert "\n" not in str(caught.value)
    Pick(observation="state").reset(seed=1)


@pytest.mark.parametrize("size", [0, 15, 513, 64.0, True])
def test_bad_sizes(size: int) -> None:
    with pytest.raises(ConfigError, match="give 16 to 512 pixels"):
        Pictures(size)
