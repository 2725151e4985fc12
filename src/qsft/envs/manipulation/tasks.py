"""What is to be done: for each task where its episodes begin, when it is solved, and how long one may try."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from qsft.envs.manipulation.scene import DRAWER_WAY, HANDLE, INSIDE_OPEN, Scene, Start

#: Height of the cube's centre at rest: on the table, on the drawer's floor.
ON_TABLE, IN_DRAWER = 0.02, 0.066
#: Height (metres) to which a cube is to be lifted, from the table and out of the drawer, whose walls end at 0.15.
LIFTED, LIFTED_OUT = 0.12, 0.20
#: How far the drawer must be open, of 0.16.
OPENED = 0.13
#: Distance from the target's middle within which the cube must lie, let go.
PLACED = 0.03
LET_GO = 0.3
_HELD = 0.04


@dataclass(frozen=True)
class Task:
    """One task.

    Args:
        name: the environment's.
        start: kind of start that is tested.
        horizon: steps after which an episode is truncated.
        solved: the success rule, on a scene that has just been stepped.
        stages: kinds of start from which data are collected, equally often. Where there are several, no trajectory of
            the data solves the task from the start that is tested.
        has_target: a place on the table is marked.
    """

    name: str
    start: str
    horizon: int
    solved: Callable[[Scene], bool]
    stages: tuple[str, ...]
    has_target: bool = False


def holds_cube(scene: Scene, height: float) -> bool:
    """The cube is between the fingers and at least so high."""
    return bool(scene.cube[2] >= height and np.linalg.norm(scene.cube - scene.effector) <= _HELD)


def placed(scene: Scene) -> bool:
    """The cube lies on the table at the target and the gripper has let go of it."""
    if scene.target is None or scene.cube[2] > ON_TABLE + 0.01 or scene.gripper > LET_GO:
        return False
    return bool(np.linalg.norm(scene.cube[:2] - scene.target) <= PLACED)


def draw_start(kind: str, has_target: bool, rng: np.random.Generator) -> Start:
    """A random start.

    Args:
        kind: ``"table"``: the cube on the table, the drawer closed. ``"open"``: the cube in the open drawer, the arm
            anywhere that opening it may have left it. ``"closed"``: the cube in the closed drawer, the arm above the
            table. ``"locked"``: the same with the drawer locked.
        has_target: whether a place for the cube is marked.
        rng: to draw from.
    """
    above_table = (*rng.uniform((0.32, -0.10, 0.18), (0.50, 0.15, 0.28)), rng.uniform(-0.3, 0.3))
    yaw = rng.uniform(-0.4, 0.4)
    on_table = (*rng.uniform((0.30, -0.05), (0.45, 0.16)), ON_TABLE, yaw)
    target = None
    if has_target:
        target = tuple(rng.uniform((0.30, -0.05), (0.45, 0.16)))
        while np.linalg.norm(np.subtract(target, on_table[:2])) < 0.08:
            target = tuple(rng.uniform((0.30, -0.05), (0.45, 0.16)))
    if kind == "table":
        return Start(_floats(above_table), _floats(on_table), 0.0, False, target and _floats(target))
    if kind == "open":
        drawer = rng.uniform(OPENED + 0.015, DRAWER_WAY)
        where = rng.uniform((-0.008, -0.012), (0.008, 0.03))
        inside = (INSIDE_OPEN[0] + where[0], INSIDE_OPEN[1] - DRAWER_WAY + drawer + where[1], IN_DRAWER, yaw)
        effector = (*rng.uniform((0.26, -0.22, 0.18), (0.50, 0.12, 0.30)), rng.uniform(-0.3, 0.3))
        if rng.random() < 0.3:  # still at the handle
            at_handle = np.add(HANDLE, (0.0, drawer, 0.0)) + rng.uniform((-0.02, -0.01, 0.0), (0.02, 0.01, 0.08))
            effector = (*at_handle, rng.uniform(-0.1, 0.1))
        return Start(_floats(effector), _floats(inside), float(drawer))
    where = rng.uniform((-0.008, 0.005), (0.008, 0.035))
    inside = (INSIDE_OPEN[0] + where[0], INSIDE_OPEN[1] - DRAWER_WAY + where[1], IN_DRAWER, yaw)
    return Start(_floats(above_table), _floats(inside), 0.0, kind == "locked")


def _floats(values: tuple) -> tuple:
    return tuple(round(float(value), 4) for value in values)


TASKS = {
    task.name: task
    for task in (
        Task("pick", "table", 25, lambda scene: holds_cube(scene, LIFTED), ("table",)),
        Task("place", "table", 35, placed, ("table",), has_target=True),
        Task("drawer", "closed", 25, lambda scene: scene.drawer >= OPENED, ("closed",)),
        Task("closed-drawer", "closed", 45, lambda scene: holds_cube(scene, LIFTED_OUT), ("closed", "open")),
        Task("blocked-drawer", "locked", 60, lambda scene: holds_cube(scene, LIFTED_OUT), ("locked", "closed", "open")),
    )
}
#: Fewest and most steps of a trajectory of data where a task has several stages.
STAGE_STEPS = {"locked": (10, 18), "closed": (16, 26), "open": (18, 26)}
