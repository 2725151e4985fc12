"""The simulation and the success rules, from states that are known."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest

from qsft.envs.manipulation.scene import BUTTON, DRAWER_WAY, HANDLE, Scene, Start, models
from qsft.envs.manipulation.tasks import TASKS, Task, draw_start
from qsft.errors import ConfigError, DataError

ON_TABLE = Start((0.40, 0.0, 0.25, 0.2), (0.35, 0.10, 0.02, 0.3))


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene()


def solved(scene: Scene, task: str, start: Start) -> bool:
    scene.place(start)
    return TASKS[task].solved(scene)


def test_everything_is_where_it_was_put(scene: Scene) -> None:
    scene.place(dataclasses.replace(ON_TABLE, drawer=0.1, locked=True, target=(0.4, 0.15)))
    expected = [0.40, 0.0, 0.25, 0.2, 0.0, 0.35, 0.10, 0.02, 0.3, 0.1, 1.0, 0.4, 0.15]
    np.testing.assert_allclose(scene.features(), expected, atol=1e-3)
    handle = scene.data.site("drawer_handle_center").xpos
    np.testing.assert_allclose(handle, np.add(HANDLE, (0.0, 0.1, 0.0)), atol=1e-3)
    np.testing.assert_allclose(scene.data.site("btntop_0").xpos, BUTTON, atol=1e-3)


@pytest.mark.parametrize("turns", [-2, -1, 1, 2])
def test_a_quarter_of_a_turn_makes_no_difference_to_a_cube(scene: Scene, turns: int) -> None:
    scene.place(dataclasses.replace(ON_TABLE, cube=(0.35, 0.10, 0.02, 0.3 + turns * np.pi / 2)))
    assert scene.features()[8] == pytest.approx(0.3)


@pytest.mark.parametrize(("axis", "sign"), [(0, 1), (0, -1), (1, 1), (1, -1), (2, -1)])
def test_an_action_moves_the_effector_along_its_axis(scene: Scene, axis: int, sign: int) -> None:
    scene.place(ON_TABLE)
    before = scene.effector.copy()
    action = np.zeros(5)
    action[axis] = sign
    assert scene.step(action)
    moved = scene.effector - before
    assert 0.03 < sign * moved[axis] < 0.11
    assert np.abs(np.delete(moved, axis)).max() < 0.02


def test_an_action_turns_and_closes_the_gripper(scene: Scene) -> None:
    scene.place(ON_TABLE)
    for _ in range(4):
        scene.step(np.array([0, 0, 0, 1.0, 1.0]))
    assert scene.yaw > 0.8
    assert scene.gripper > 0.9
    for _ in range(8):
        scene.step(np.array([0, 0, 0, 0.0, -1.0]))
    assert scene.gripper < 0.05


def test_the_same_actions_make_the_same_states(scene: Scene) -> None:
    other = Scene()
    actions = np.random.default_rng(0).uniform(-1, 1, (5, 5))
    states = []
    for one in (scene, other, scene):
        one.place(ON_TABLE)
        states.append([(one.step(action), one.state().tolist()) for action in actions])
    assert states[0] == states[1] == states[2]


def test_a_stored_state_is_shown_again(scene: Scene) -> None:
    scene.place(dataclasses.replace(ON_TABLE, locked=True, target=(0.4, 0.15)))
    scene.step(np.array([1.0, -1.0, 0.0, 1.0, 1.0]))
    state, features = scene.state(), scene.features()
    other = Scene()
    other.restore(np.array(state.tolist()))
    np.testing.assert_array_equal(other.features(), features)
    np.testing.assert_array_equal(other.state(), state)
    scene.place(ON_TABLE)
    assert len(scene.state()) == len(state) - 2
    other.restore(scene.state())
    assert (other.target, other.locked) == (None, False)
    for wrong in (state[:5], np.full(len(state), np.nan)):
        with pytest.raises(DataError, match=f"state: {len(wrong)} numbers"):
            other.restore(wrong)


def test_lifting(scene: Scene) -> None:
    held = Start((0.40, 0.0, 0.25, 0.0), (0.40, 0.0, 0.25, 0.0))
    assert solved(scene, "pick", held)
    assert solved(scene, "closed-drawer", held)
    assert solved(scene, "blocked-drawer", held)
    low = Start((0.40, 0.0, 0.15, 0.0), (0.40, 0.0, 0.15, 0.0))
    assert solved(scene, "pick", low)
    assert not solved(scene, "closed-drawer", low), "the drawer's walls are as high"
    thrown = Start((0.40, 0.0, 0.25, 0.0), (0.40, 0.06, 0.25, 0.0))
    assert not solved(scene, "pick", thrown), "in the air, but not in hand"
    touched = Start((0.40, 0.0, 0.02, 0.0), (0.40, 0.0, 0.02, 0.0))
    assert not solved(scene, "pick", touched)


@pytest.mark.parametrize(("drawer", "expected"), [(0.0, False), (0.12, False), (0.14, True), (DRAWER_WAY, True)])
def test_opening(scene: Scene, drawer: float, expected: bool) -> None:
    assert solved(scene, "drawer", dataclasses.replace(ON_TABLE, drawer=drawer)) == expected


def test_placing(scene: Scene) -> None:
    there = dataclasses.replace(ON_TABLE, target=(0.37, 0.11))
    assert solved(scene, "place", there)
    assert not solved(scene, "place", ON_TABLE), "no target"
    assert not solved(scene, "place", dataclasses.replace(there, target=(0.39, 0.11)))
    assert not solved(scene, "place", dataclasses.replace(there, cube=(0.35, 0.10, 0.06, 0.0))), "in the air"
    scene.place(there)
    for _ in range(3):
        scene.step(np.array([0, 0, 0, 0, 1.0]))
    assert not TASKS["place"].solved(scene), "the gripper is closed"


@pytest.mark.parametrize("locked", [False, True])
def test_the_lock_holds_the_drawer(scene: Scene, locked: bool) -> None:
    at_handle = (HANDLE[0], HANDLE[1], HANDLE[2] - 0.01, 0.0)
    scene.place(Start(at_handle, (0.33, -0.40, 0.066, 0.0), locked=locked))
    for _ in range(4):
        assert scene.step(np.array([0, 0.7, 0, 0, -1.0]))
    assert (scene.drawer > 0.1) == (not locked)
    assert (scene.drawer < 0.01) == locked


def test_a_press_of_the_button_toggles_the_lock(scene: Scene) -> None:
    above = (BUTTON[0], BUTTON[1], 0.2, 0.0)
    for locked in (True, False):
        scene.place(dataclasses.replace(ON_TABLE, effector=above, locked=locked))
        seen = []
        for move in [0.0] * 3 + [-1.0] * 3:
            scene.step(np.array([0, 0, move, 0, 1.0]))
            seen.append(scene.locked)
        assert seen[:3] == [locked] * 3
        assert seen[-1] != locked


@pytest.mark.parametrize("value", [np.nan, 1e300])
def test_a_simulation_that_comes_apart_is_noticed(scene: Scene, value: float) -> None:
    scene.place(ON_TABLE)
    assert scene.hold()
    scene.data.qvel[:] = value
    assert not scene.hold()
    scene.place(ON_TABLE)
    assert scene.hold(), "a new start mends it"


def test_a_cube_that_left_is_noticed(scene: Scene) -> None:
    scene.place(dataclasses.replace(ON_TABLE, cube=(0.35, 0.10, 0.7, 0.0)))
    assert not scene.hold()


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_starts_are_at_rest_and_unsolved(scene: Scene, task: Task) -> None:
    for stage in {task.start, *task.stages}:
        start = draw_start(stage, task.has_target, np.random.default_rng(1))
        scene.place(start)
        before = scene.features()
        assert scene.hold()
        moved = np.abs(scene.features() - before)
        assert moved[5:8].max() < 0.004, "the cube lies"
        assert moved[9] < 0.004, "the drawer stands"
        assert not task.solved(scene)
        assert (scene.locked, scene.drawer > 0.13) == (stage == "locked", stage == "open")


def test_without_ogbench_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ogbench.manipspace", None)
    with pytest.raises(ConfigError, match=r"pip install 'qsft\[robots\]'"):
        models.__wrapped__()
