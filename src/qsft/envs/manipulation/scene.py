"""The simulated table: OGBench's `scene` (MuJoCo), stepped without what only OGBench's own tasks need."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from qsft.errors import ConfigError, DataError

#: Pixels of a side.
LARGEST_PICTURE = 512
#: Seconds of a step, and of one of MuJoCo's.
STEP_SECONDS = 0.1
_PHYSICS_SECONDS = 0.0025
#: What an action of 1 asks for: metres in x, y and z, radians of yaw, share of the gripper's way (1 closes it).
ACTION_SCALE = np.array([0.1, 0.1, 0.1, 0.6, 1.0])

# The arm keeps to this box (metres) and turns its gripper within these bounds (radians). At 0 the fingers are in front
# and behind, as the drawer's handle wants it; a cube in the drawer has to be taken from left and right, at pi / 2.
WORKSPACE = np.array([[0.25, -0.35, 0.02], [0.60, 0.35, 0.35]])
YAW_BOUNDS = (-0.8, 2.4)
#: The drawer's way, its handle when it is closed, and the middle of its inside where it is open.
DRAWER_WAY = 0.16
HANDLE = np.array([0.33, -0.24, 0.08])
INSIDE_OPEN = np.array([0.33, -0.25])
#: Top of the button that unlocks the drawer, as long as nobody presses it.
BUTTON = np.array([0.58, -0.05, 0.125])
_BUTTON_PRESSED = -0.02
# OGBench's: beyond this the simulation has come apart.
_FARTHEST = np.array([[0.05, -0.55, -0.18], [0.80, 0.55, 0.55]])

_HOME = np.array([-np.pi / 2, -np.pi / 2, np.pi / 2, -np.pi / 2, -np.pi / 2, 0.0])
_LOCKED_DAMPING, _FREE_DAMPING = 1e6, 2.0
_RED, _WHITE = (0.96, 0.26, 0.33, 1.0), (0.9, 0.9, 0.9, 1.0)
_HIDDEN = (0.0, 0.0, -0.3)

#: Name, lower and upper bound of what is seen of a scene, in metres, radians and shares; ``locked`` is 0 or 1.
FEATURES: dict[str, tuple[float, float]] = {
    "effector_x": (0.25, 0.60),
    "effector_y": (-0.35, 0.35),
    "effector_z": (0.02, 0.35),
    "effector_yaw": YAW_BOUNDS,
    "gripper": (0.0, 1.0),
    "cube_x": (0.20, 0.65),
    "cube_y": (-0.50, 0.40),
    "cube_z": (0.0, 0.40),
    "cube_yaw": (-np.pi / 4, np.pi / 4),
    "drawer": (0.0, DRAWER_WAY),
    "locked": (0.0, 1.0),
}


@dataclass(frozen=True)
class Start:
    """Where everything is at the beginning of an episode.

    Args:
        effector: x, y, z and yaw of the point between the fingers, which are open.
        cube: x, y, z and yaw of the cube.
        drawer: how far the drawer is open, 0 to 0.16.
        locked: whether the drawer is locked; pressing the button toggles it.
        target: x and y of the marked place, if there is one.
    """

    effector: tuple[float, float, float, float]
    cube: tuple[float, float, float, float]
    drawer: float = 0.0
    locked: bool = False
    target: tuple[float, float] | None = None


@dataclass(frozen=True)
class Models:
    """What all scenes of a process share. Nothing in it changes.

    Attributes:
        table: the whole scene, with the drawer free.
        locked: the same with the drawer locked, which shows by a red handle and a red button.
        arm: the arm alone, for inverse kinematics.
    """

    table: Any
    locked: Any
    arm: Any


@contextmanager
def _without(variable: str) -> Iterator[None]:
    """The block does not see an environment variable."""
    value = os.environ.pop(variable, None)
    try:
        yield
    finally:
        if value is not None:
            os.environ[variable] = value


@cache
def models() -> Models:
    """Compiles the models, once a process (about 1.5 seconds).

    Raises:
        ConfigError: OGBench is not installed.
    """
    try:
        # they look for a screen and for the library that MUJOCO_GL names, which nobody needs who draws nothing
        with warnings.catch_warnings(), _without("MUJOCO_GL"):
            warnings.simplefilter("ignore")
            import mujoco
            import ogbench.manipspace
            from ogbench.manipspace.envs.scene_env import SceneEnv
    except ImportError as error:
        raise ConfigError(f"manipulation: needs OGBench ({error}); install it: pip install 'qsft[robots]'") from error
    env = SceneEnv(env_type="scene", mode="data_collection", visualize_info=False)
    env.reset(seed=0)
    descriptions = Path(ogbench.manipspace.__file__).parent / "descriptions"
    arm = mujoco.MjModel.from_xml_path(str(descriptions / "universal_robots_ur5e" / "ur5e.xml"))
    table = env.model
    table.opt.timestep = _PHYSICS_SECONDS
    # It keeps cubes on OGBench's table, but goes right through the closed drawer.
    wall = table.geom("wall_1")
    wall.contype = wall.conaffinity = 0
    table.geom("target_object_0").rgba = (0.35, 0.55, 0.91, 0.4)
    table.geom("object_0").rgba = _RED
    # Where a CPU draws, smoothed edges cost most of the time, then triangles (drawn are fewer, see pictures.py) and lamps
    # besides the one at the camera; nobody sees the ring.
    table.vis.quality.offsamples = 0
    table.light_active[:] = 0
    table.vis.headlight.ambient[:], table.vis.headlight.diffuse[:] = 0.4, 0.8
    table.geom_group[[geom for geom in range(table.ngeom) if _body_of(table, geom) == "ur5e/robotiq/base_mount"]] = 5
    table.vis.global_.offwidth = table.vis.global_.offheight = LARGEST_PICTURE
    locked = copy.copy(table)
    for model, damping, colour in ((table, _FREE_DAMPING, _WHITE), (locked, _LOCKED_DAMPING, _RED)):
        model.joint("drawer_slide").damping[0] = damping
        model.material("drawer_handle").rgba = colour
        model.geom("btngeom_0").rgba = colour
    return Models(table, locked, arm)


def _body_of(model: Any, geom: int) -> str:
    return model.body(model.geom_bodyid[geom]).name


class Scene:
    """One table with its arm, cube, drawer and button.

    Raises:
        ConfigError: OGBench is not installed.
    """

    def __init__(self) -> None:
        self._models = models()
        import mujoco
        from ogbench.manipspace.controllers import DiffIKController

        self._mujoco = mujoco
        table = self._models.table
        self.data = mujoco.MjData(table)
        self._ik = DiffIKController(model=self._models.arm, sites=["attachment_site"])
        self._pinch = table.site("ur5e/robotiq/pinch").id
        self._gripper = int(table.joint("ur5e/robotiq/right_driver_joint").qposadr[0])
        self._cube = int(table.joint("object_joint_0").qposadr[0])
        self._button = int(table.joint("buttonbox_joint_0").qposadr[0])
        self._drawer = int(table.joint("drawer_slide").qposadr[0])
        kinds = mujoco.mjtWarning
        self._broken = (kinds.mjWARN_BADQPOS, kinds.mjWARN_BADQVEL, kinds.mjWARN_BADQACC)
        self.locked = False
        self.target: tuple[float, float] | None = None
        self._flange = self._flange_above_pinch()

    @property
    def model(self) -> Any:
        """The MuJoCo model for the state of the lock."""
        return self._models.locked if self.locked else self._models.table

    def place(self, start: Start) -> None:
        """Puts everything where ``start`` says, at rest."""
        self._mujoco.mj_resetData(self.model, self.data)
        self.locked, self.target = start.locked, start.target
        qpos = self.data.qpos
        qpos[:6] = self._arm_joints(np.array(start.effector[:3]), start.effector[3], _HOME)
        qpos[self._cube : self._cube + 3] = start.cube[:3]
        qpos[self._cube + 3 : self._cube + 7] = _about_z(start.cube[3])
        qpos[self._drawer] = -start.drawer
        self.data.ctrl[:6] = qpos[:6]
        self._mark_target()
        self._mujoco.mj_forward(self.model, self.data)

    def step(self, action: np.ndarray) -> bool:
        """Asks the arm for a movement and lets ``STEP_SECONDS`` pass.

        Args:
            action: [5] in [-1, 1], in units of ``ACTION_SCALE``, relative to where the effector and its fingers are.

        Returns:
            Whether the simulation is still sound. If not, the scene must not be used until :meth:`place` or
            :meth:`restore`.
        """
        move = action * ACTION_SCALE
        position = np.clip(self.effector + move[:3], *WORKSPACE)
        yaw = float(np.clip(self.yaw + move[3], *YAW_BOUNDS))
        self.data.ctrl[:6] = self._arm_joints(position, yaw, self.data.qpos[:6])
        self.data.ctrl[6] = 255.0 * np.clip(self.gripper + move[4], 0.0, 1.0)
        return self.hold()

    def hold(self) -> bool:
        """Lets ``STEP_SECONDS`` pass with what the arm was asked for last; returns as :meth:`step` does."""
        up = self.data.qpos[self._button] > _BUTTON_PRESSED
        self._mujoco.mj_step(self.model, self.data, nstep=round(STEP_SECONDS / _PHYSICS_SECONDS))
        # MuJoCo puts a simulation that has come apart back to its first state, and counts that.
        if any(self.data.warning[kind].number for kind in self._broken):
            return False
        # MuJoCo leaves what follows from the joints as it was before the last of its steps.
        self._mujoco.mj_kinematics(self.model, self.data)
        if up and self.data.qpos[self._button] <= _BUTTON_PRESSED:
            self.locked = not self.locked
        return bool((self.cube > _FARTHEST[0]).all() and (self.cube < _FARTHEST[1]).all())

    @property
    def effector(self) -> np.ndarray:
        """[3] metres: the point between the fingers."""
        return self.data.site_xpos[self._pinch]

    @property
    def yaw(self) -> float:
        """Radians by which the gripper is turned."""
        matrix = self.data.site_xmat[self._pinch]
        return float(np.arctan2(matrix[3], matrix[0]))

    @property
    def gripper(self) -> float:
        """0 open, 1 closed."""
        return float(np.clip(self.data.qpos[self._gripper] / 0.8, 0.0, 1.0))

    @property
    def cube(self) -> np.ndarray:
        """[3] metres: the cube's centre."""
        return self.data.qpos[self._cube : self._cube + 3]

    @property
    def drawer(self) -> float:
        """Metres that the drawer is open."""
        return float(-self.data.qpos[self._drawer])

    def features(self) -> np.ndarray:
        """[11] or [13] float64: what is seen, in the order of ``FEATURES``, then the target's x and y if there is one.

        A cube looks the same after a quarter of a turn: its yaw is within an eighth of a turn.
        """
        w, x, y, z = self.data.qpos[self._cube + 3 : self._cube + 7]
        yaw = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
        yaw -= np.pi / 2 * np.round(yaw / (np.pi / 2))
        seen = [*self.effector, self.yaw, self.gripper, *self.cube, yaw, self.drawer, float(self.locked)]
        return np.array([*seen, *(self.target or ())])

    def state(self) -> np.ndarray:
        """[nq + 1] or [nq + 3] float64: all joints, the lock, then the target if there is one: all that is to be seen."""
        return np.array([*self.data.qpos, float(self.locked), *(self.target or ())])

    def restore(self, state: np.ndarray) -> None:
        """Shows a :meth:`state` again, at rest.

        Raises:
            DataError: it is no state of this scene.
        """
        joints = len(self.data.qpos)
        if len(state) not in (joints + 1, joints + 3) or not np.isfinite(state).all():
            raise DataError(
                f"state: {len(state)} numbers; give {joints + 1} or, with a target, {joints + 3} finite ones"
            )
        self._mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:] = state[:joints]
        self.locked = bool(state[joints])
        self.target = (float(state[-2]), float(state[-1])) if len(state) > joints + 1 else None
        self.data.ctrl[:6] = self.data.qpos[:6]
        self._mark_target()
        self._mujoco.mj_forward(self.model, self.data)

    def _mark_target(self) -> None:
        self.data.mocap_pos[0] = _HIDDEN if self.target is None else (*self.target, 0.02)

    def _arm_joints(self, position: np.ndarray, yaw: float, joints: np.ndarray) -> np.ndarray:
        """Joints near ``joints`` that bring the effector to a position, pointing down, turned by ``yaw``."""
        # Turned over about x, then by yaw about z.
        turned = np.array([0.0, np.cos(yaw / 2), np.sin(yaw / 2), 0.0])
        offset, quaternion = np.empty(3), np.empty(4)
        self._mujoco.mju_rotVecQuat(offset, self._flange[0], turned)
        self._mujoco.mju_mulQuat(quaternion, turned, self._flange[1])
        return self._ik.solve(pos=position + offset, quat=quaternion, curr_qpos=joints)

    def _flange_above_pinch(self) -> tuple[np.ndarray, np.ndarray]:
        """Offset and quaternion of the arm's flange, which inverse kinematics is about, seen from between the fingers."""
        self._mujoco.mj_kinematics(self.model, self.data)
        flange = self.model.site("ur5e/attachment_site").id
        frames = [self.data.site_xmat[site].reshape(3, 3) for site in (self._pinch, flange)]
        offset = frames[0].T @ (self.data.site_xpos[flange] - self.data.site_xpos[self._pinch])
        quaternion = np.empty(4)
        self._mujoco.mju_mat2Quat(quaternion, (frames[0].T @ frames[1]).ravel())
        return offset, quaternion


def _about_z(yaw: float) -> tuple[float, float, float, float]:
    return (float(np.cos(yaw / 2)), 0.0, 0.0, float(np.sin(yaw / 2)))
