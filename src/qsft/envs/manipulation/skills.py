"""What the arm can be told to do, step by step, from what is seen alone: nothing is remembered from step to step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from qsft.envs.manipulation.scene import BUTTON, HANDLE
from qsft.envs.manipulation.tasks import ON_TABLE, OPENED

#: Height (metres) to cross the table at, above drawer and button.
_CRUISE = 0.22
#: Height of the effector above a cube at which its fingers pass over it, and over the drawer's walls.
_CLEAR = 0.11
#: Metres in x and y by which a fast way down swings the hand off, a metre of it.
_SWING = np.array([0.16, -0.22])
_OPEN, _CLOSE = -1.0, 1.0
#: Of the gripper's way: fingers on a cube stop between these two; closed on nothing they go further.
_ON_CUBE, _ON_NOTHING = 0.33, 0.75


@dataclass(frozen=True)
class Seen:
    """The features of a scene by name; see :data:`qsft.envs.manipulation.scene.FEATURES`."""

    effector: np.ndarray
    yaw: float
    gripper: float
    cube: np.ndarray
    cube_yaw: float
    drawer: float
    locked: bool
    target: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> Seen:
        """From the vector of features, [11] or [13]."""
        return cls(
            features[0:3],
            float(features[3]),
            float(features[4]),
            features[5:8],
            float(features[8]),
            float(features[9]),
            bool(features[10] > 0.5),
            features[11:13],
        )


@dataclass(frozen=True)
class Manner:
    """How an episode's player does things.

    Args:
        miss: [3] metres by which it misjudges where to reach, the same all episode long.
        rest: [3] metres, where it goes when it has nothing left to do.
    """

    miss: np.ndarray
    rest: np.ndarray


#: What to aim at: metres to go (x, y, z), radians to turn, and the gripper's action.
Move = tuple[np.ndarray, float, float]
Skill = Callable[[Seen, Manner], Move]


def lift(seen: Seen, manner: Manner) -> Move:
    """Grasp the cube and lift it, without end."""
    turn = seen.cube_yaw + (np.pi / 2 if _inside(seen) else 0.0) - seen.yaw
    if _in_hand(seen):
        return np.array([0.0, 0.0, 0.1]), 0.0, _CLOSE
    goal = seen.cube + manner.miss
    if seen.gripper > _ON_NOTHING:
        return np.array([0.0, 0.0, 0.05]), turn, _OPEN
    if _near(seen.effector, goal, 0.012, 0.012):
        return goal - seen.effector, 0.0, _CLOSE
    hover = _CLEAR if abs(turn) > 0.2 else 0.0  # turn before the fingers are beside the cube
    return _above_then_down(seen, np.add(goal, (0.0, 0.0, hover)), 0.012), turn, _OPEN


def put(seen: Seen, manner: Manner) -> Move:
    """Bring the cube to the target, and let go of it."""
    way = seen.target - seen.cube[:2]
    if _in_hand(seen):
        if np.linalg.norm(way) > 0.012:
            height = 0.12 if np.linalg.norm(way) > 0.04 else 0.06
            if seen.effector[2] < 0.05:
                return np.array([0.0, 0.0, 0.08]), 0.0, _CLOSE
            return np.array([*way, height - seen.effector[2]]), 0.0, _CLOSE
        if seen.cube[2] > ON_TABLE + 0.012:
            return np.array([*way, ON_TABLE - seen.cube[2]]), 0.0, _CLOSE
        return np.zeros(3), 0.0, _OPEN
    if np.linalg.norm(way) <= 0.02 and seen.cube[2] <= ON_TABLE + 0.012:
        return np.array([0.0, 0.0, 0.05]), 0.0, _OPEN
    return lift(seen, manner)


def pull(seen: Seen, manner: Manner) -> Move:
    """Open the drawer by its handle, then go and rest."""
    handle = np.add(HANDLE, (0.0, seen.drawer, -0.01)) + manner.miss
    if seen.drawer >= OPENED + 0.02:
        return rest(seen, manner)
    way = handle - seen.effector
    if abs(way[0]) < 0.04 and abs(way[1]) < 0.05 and way[2] > -0.02:  # the handle is between the fingers
        return np.array([way[0], 0.05, way[2]]), -seen.yaw, _OPEN
    return _above_then_down(seen, handle, 0.015), -seen.yaw, _OPEN


def press(seen: Seen, manner: Manner) -> Move:
    """Press the button until the drawer is unlocked, then go and rest."""
    if not seen.locked:
        return rest(seen, manner)
    goal = np.add(BUTTON, (0.0, 0.0, -0.03)) + manner.miss
    return _above_then_down(seen, goal, 0.015, height=0.20), -seen.yaw, _CLOSE


def rest(seen: Seen, manner: Manner) -> Move:
    """Go up and then to the place of rest, with open fingers."""
    way = manner.rest - seen.effector
    if seen.effector[2] < 0.16 and np.linalg.norm(way[:2]) > 0.03:
        way = np.array([0.0, 0.0, _CRUISE - seen.effector[2]])
    return way, -seen.yaw, _OPEN


def solve(seen: Seen, manner: Manner) -> Move:
    """All stages one after the other, as far as they are needed to have the cube in hand."""
    if _inside(seen) and not _in_hand(seen):
        if seen.locked:
            return press(seen, manner)
        if seen.drawer < OPENED:
            return pull(seen, manner)
    return lift(seen, manner)


def _inside(seen: Seen) -> bool:
    return bool(seen.cube[1] < HANDLE[1] + seen.drawer - 0.02)


def _in_hand(seen: Seen) -> bool:
    return _near(seen.effector, seen.cube, 0.03, 0.03) and _ON_CUBE < seen.gripper < _ON_NOTHING


def _near(point: np.ndarray, goal: np.ndarray, across: float, up: float) -> bool:
    return bool(np.linalg.norm(point[:2] - goal[:2]) <= across and abs(point[2] - goal[2]) <= up)


def _above_then_down(seen: Seen, goal: np.ndarray, across: float, height: float = _CRUISE) -> np.ndarray:
    """Metres to go: up to a safe height, over the goal, and straight down."""
    way = goal - seen.effector
    distance = np.linalg.norm(way[:2])
    if distance <= across:
        way[:2] += _SWING * np.clip(way[2], -0.07, 0.0)
        return way
    if distance > 0.05 and seen.effector[2] < height - 0.06:
        return np.array([0.0, 0.0, height - seen.effector[2]])
    if distance <= 0.03:  # nearly there: correct while going down, but slowly
        return np.array([way[0], way[1], max(way[2], -0.02)])
    return np.array([way[0], way[1], height - seen.effector[2]])


def action_of(move: Move, scale: np.ndarray) -> np.ndarray:
    """The action in [-1, 1] that asks for a move, [5]. The arm reaches two thirds of what it is asked for."""
    metres, turn, gripper = move
    return np.clip(np.array([*(1.4 * metres / scale[:3]), turn / scale[3], gripper]), -1.0, 1.0)
