"""Pictures of a scene, and moving ones of an episode. Needs OpenGL, in software at least."""

from __future__ import annotations

import copy
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qsft.envs.manipulation.meshes import simplify
from qsft.envs.manipulation.scene import LARGEST_PICTURE, STEP_SECONDS, Scene, models
from qsft.errors import ConfigError, DataError

if TYPE_CHECKING:
    from qsft.data.trajectory import Trajectory

_CAMERA = "front_pixels"
# The camera at the hand: metres from between the fingers, degrees below the horizon.
_WRIST_DISTANCE, _WRIST_ELEVATION = 0.22, -50.0
_BACKENDS = ("egl", "osmesa", "glfw")
# Each costs as much as all the rest where a CPU draws, and no policy needs it.
_COSTLY = ("SHADOW", "REFLECTION", "SKYBOX", "HAZE")


class Pictures:
    """Draws scenes from the fixed camera, and from one at the gripper if asked for.

    Args:
        size: pixels of a side, 16 to 512; 64 is usual, the paper's robots see 48.
        wrist: also from the gripper.

    Attributes:
        shape: of what :meth:`of` returns.

    Raises:
        ConfigError: another size, a wrist that is no truth value, OGBench is not installed, or there is no OpenGL.
    """

    def __init__(self, size: int = 64, wrist: bool = False) -> None:
        if isinstance(size, bool) or not isinstance(size, int) or not 16 <= size <= LARGEST_PICTURE:
            raise ConfigError(f"image_size: {size!r}; give 16 to {LARGEST_PICTURE} pixels")
        if not isinstance(wrist, bool):
            raise ConfigError(f"wrist: {wrist!r:.60}; give true or false")
        self.wrist = wrist
        self.shape = (2, size, size, 3) if wrist else (size, size, 3)
        self._canvas = _canvas(size)
        self._shown: Scene | None = None

    def of(self, scene: Scene) -> np.ndarray:
        """``[size, size, 3]`` uint8, or ``[2, size, size, 3]``: the fixed camera's picture, then the gripper's."""
        fixed = self._canvas.draw(scene, self._canvas.fixed)
        return np.stack([fixed, self._canvas.draw(scene, self._at_hand(scene))]) if self.wrist else fixed

    def of_states(self, states: Sequence[Sequence[float]]) -> np.ndarray:
        """Pictures of stored states (metadata ``states`` of collected trajectories), ``[T, *shape]`` uint8.

        Raises:
            DataError: something that is no state.
        """
        self._shown = self._shown or Scene()
        try:
            found = [np.array(state, np.float64).reshape(-1) for state in states]
        except (TypeError, ValueError) as error:
            raise DataError(
                f"states: {states!r:.60} are no lists of numbers ({error}); collect the episode again"
            ) from None
        pictures = []
        for state in found:
            self._shown.restore(state)
            pictures.append(self.of(self._shown))
        return np.stack(pictures)

    def _at_hand(self, scene: Scene) -> Any:
        camera = self._canvas.free
        camera.lookat[:] = scene.effector
        camera.distance, camera.elevation = _WRIST_DISTANCE, _WRIST_ELEVATION
        camera.azimuth = 180.0 + np.degrees(scene.yaw)
        return camera


def episode_pictures(
    trajectory: Trajectory, size: int = 256, env_options: Mapping[str, Any] | None = None
) -> np.ndarray:
    """An episode from the fixed camera, ``[frames, size, size, 3]`` uint8: one for each observation, and where the task
    was solved the last one again, in a green frame.

    Args:
        trajectory: with ``states`` in its metadata, as the collected ones of scripted policies have; or with ``env`` and
            the reset options, as those of other policies have: then it is played again.
        size: pixels of a side.
        env_options: what it was collected with, where it is to be played again.

    Raises:
        ConfigError: as :class:`Pictures`.
        DataError: a trajectory with neither, or one that goes another way when it is played again.
    """
    states = trajectory.metadata.get("states") or _played_again(trajectory, env_options or {})
    pictures = Pictures(size).of_states(states)
    if trajectory.metadata.get("success"):
        edge = max(size // 32, 1)
        framed = pictures[-1].copy()
        for side in (framed[:edge], framed[-edge:], framed[:, :edge], framed[:, -edge:]):
            side[:] = (30, 160, 70)
        pictures = np.concatenate([pictures, framed[None]])
    return pictures


def save_gif(trajectory: Trajectory, path: str | os.PathLike[str], size: int = 256) -> None:
    """:func:`episode_pictures` as a GIF in real time, its last picture for a second; a file at ``path`` is replaced."""
    from qsft.data.video import write_video

    write_video(Path(path), list(episode_pictures(trajectory, size)), 1 / STEP_SECONDS)


def _played_again(trajectory: Trajectory, env_options: Mapping[str, Any]) -> list[list[float]]:
    """The states of an episode whose metadata replays it."""
    from qsft.envs.manipulation.env import Manipulation
    from qsft.envs.registry import environment_class, make, names

    metadata = trajectory.metadata
    name = metadata.get("env")
    if name not in names() or not issubclass(environment_class(name), Manipulation):
        raise DataError(
            "trajectory: no states in its metadata, nor the name of a robot task; collect it with qsft collect"
        )
    env = make(name, **env_options)
    assert isinstance(env, Manipulation)
    missing = [option for option in env.reset_options if option not in metadata]
    if missing:
        raise DataError(
            f"trajectory: no {missing[0]} in its metadata, which its start needs; collect it with qsft collect"
        )
    seen, _ = env.reset(options={option: metadata[option] for option in env.reset_options})
    states = [env.scene.state().tolist()]
    for turn, following in zip(trajectory.turns, [*trajectory.turns[1:], None], strict=True):
        if not turn.is_agent:
            told = seen["text"] if isinstance(seen, dict) else seen
            if isinstance(told, str) and turn.text != told:
                now, then = told.strip(), turn.text.strip()
                raise DataError(
                    f"trajectory: when it is played again, {now!r:.40} is seen instead of {then!r:.40}; "
                    "give the options it was collected with (--env-option)"
                )
        elif following is not None:
            seen = env.step(turn.text)[0]
            states.append(env.scene.state().tolist())
    return states


class _Canvas:
    """An OpenGL context of one size with the models' meshes in it, which takes a third of a second to make."""

    def __init__(self, size: int) -> None:
        model = drawn_model()
        import mujoco

        self._mujoco = mujoco
        self._gl, self._context = _gl_context(model, size)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=500)
        self._options = mujoco.MjvOption()
        self._rectangle = mujoco.MjrRect(0, 0, size, size)
        self._pixels = np.empty((size, size, 3), np.uint8)
        self.fixed = mujoco.MjvCamera()
        self.fixed.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self.fixed.fixedcamid = model.camera(_CAMERA).id
        self.free = mujoco.MjvCamera()

    def draw(self, scene: Scene, camera: Any) -> np.ndarray:
        mujoco = self._mujoco
        self._gl.make_current()
        mujoco.mjv_updateScene(
            scene.model, scene.data, self._options, None, camera, mujoco.mjtCatBit.mjCAT_ALL, self._scene
        )
        for name in _COSTLY:
            self._scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{name}")] = 0
        mujoco.mjr_render(self._rectangle, self._scene, self._context)
        mujoco.mjr_readPixels(self._pixels, None, self._rectangle, self._context)
        return self._pixels[::-1].copy()


@cache
def drawn_model() -> Any:
    """The table with few triangles: what OpenGL is given of the meshes. Who draws nothing need not make it."""
    model = copy.copy(models().table)
    simplify(model)
    return model


@cache
def _canvas(size: int) -> _Canvas:
    """Never given back: what MuJoCo frees of a context is taken from the one that is current, whose pictures turn black."""
    return _Canvas(size)


def _gl_context(model: Any, size: int) -> tuple[Any, Any]:
    """An off-screen OpenGL context, EGL's or of what the environment variable MUJOCO_GL names, and MuJoCo's in it.

    Raises:
        ConfigError: there is no such library, or it cannot draw here.
    """
    import mujoco

    backend = os.environ.get("MUJOCO_GL", "").lower() or ("egl" if sys.platform == "linux" else "glfw")
    if backend not in _BACKENDS:
        raise ConfigError(f"images: MUJOCO_GL={backend!r:.40} is unknown; use one of {', '.join(_BACKENDS)}")
    # What PyOpenGL raises for a library that is not there depends on the library.
    try:
        gl = importlib.import_module(f"mujoco.{backend}").GLContext(size, size)
        gl.make_current()
        return gl, mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
    except (ImportError, AttributeError, OSError, RuntimeError, TypeError, mujoco.FatalError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"images: no OpenGL by {backend} ({reason:.120}); install it (Debian, Ubuntu: apt-get install libegl1 "
            "libgl1-mesa-dri, or libosmesa6 with MUJOCO_GL=osmesa), or use observation='state'"
        ) from error
