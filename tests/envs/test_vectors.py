"""Environments played in the words of converted data: the same bins, pictures and instructions as in the file."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from qsft.data import load_trajectories
from qsft.data.action_tokens import VectorTokens
from qsft.data.roboverse import RoboverseSource
from qsft.data.spaces import flat, leaves, space_parts, unflat, vector_spec
from qsft.data.trajectory import Trajectory
from qsft.data.vector_episodes import convert
from qsft.data.vector_metadata import vector_tokens
from qsft.envs import EpisodeError, make
from qsft.envs.gymnasium_task import GymnasiumTask
from qsft.envs.roboverse import RoboverseTask
from qsft.errors import ConfigError, DataError
from qsft.evaluation import rollout

GYMNASIUM, ROBOVERSE = "qsft.envs.gymnasium_task:GymnasiumTask", "qsft.envs.roboverse:RoboverseTask"


class Repeats:
    """Does what an episode of the data did."""

    name = "repeats"

    def __init__(self, game: Trajectory) -> None:
        self.actions = [turn.text for turn in game.agent_turns]

    def seed(self, seed: int) -> None: ...

    def act(self, histories: list[Trajectory]) -> list[str]:
        return [self.actions[sum(1 for _ in history.agent_turns)] for history in histories]


class Door(gymnasium.Env):
    """A handle to turn by the amount that is shown, for as long as it is told."""

    observation_space = spaces.Dict(
        {
            "handle": spaces.Box(-2, 2, (2,), np.float32),
            "eye": spaces.Box(0, 255, (6, 4, 1), np.uint8),
            "mission": spaces.Text(40, charset="turn i"),
        }
    )
    action_space = spaces.Tuple((spaces.Discrete(3, start=5), spaces.Box(-1, 1, (2, 1), np.float32)))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.handle = self.np_random.uniform(-2, 2, 2)
        self.done: list[Any] = []
        return self.seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.done.append(action)
        over = bool(action[0] == 7)
        return self.seen(), 0.0, over, False, {"is_success": np.bool_(over)}

    def seen(self) -> dict[str, Any]:
        eye = np.full((6, 4, 1), 10 * len(self.done), np.uint8)
        return {"handle": self.handle.astype(np.float32), "eye": eye, "mission": "turn it"}


def recorded(env: gymnasium.Env, seed: int) -> Any:
    """A random episode, as Minari takes it."""
    from minari.data_collector.episode_buffer import EpisodeBuffer

    env.action_space.seed(seed)
    observations, steps = [env.reset(seed=seed)[0]], []
    while not steps or not any(steps[-1][2:4]):
        action = env.action_space.sample()
        seen, reward, terminated, truncated, _ = env.step(action)
        observations.append(seen)
        steps.append((action, reward, terminated, truncated))
    actions, rewards, terminations, truncations = zip(*steps, strict=True)
    return EpisodeBuffer(
        observations={key: [seen[key] for seen in observations] for key in observations[0]},
        actions=tuple(np.array(part) for part in zip(*actions, strict=True)),
        rewards=list(rewards),
        terminations=list(terminations),
        truncations=list(truncations),
    )


@pytest.fixture
def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Random episodes of the door, recorded by Minari."""
    minari = pytest.importorskip("minari")
    pytest.importorskip("h5py")
    from qsft.data.minari import MinariSource

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    spec = gymnasium.envs.registration.EnvSpec("Door-v0", f"{__name__}:Door", max_episode_steps=9)
    monkeypatch.setitem(gymnasium.registry, "Door-v0", spec)
    env = gymnasium.make("Door-v0")
    with pytest.warns(UserWarning, match="is set to None"):
        minari.create_dataset_from_buffers("door-v0", [recorded(env, seed) for seed in range(4)], env="Door-v0")
    convert(MinariSource("door-v0"), tmp_path / "door.jsonl", instruction=True)
    return tmp_path / "door.jsonl"


def test_what_minari_recorded_is_played_in_its_words(door: Path) -> None:
    env = make(GYMNASIUM, data=str(door))
    assert isinstance(env, GymnasiumTask) and env.name == "Door-v0" and env.max_turns == 9
    seen, _ = env.reset(seed=3)
    assert env.observation_space.contains(seen)
    inner = env._inner.unwrapped
    states = vector_tokens(next(iter(load_trajectories(door))).metadata, "observation")
    assert states is not None and seen["text"].startswith("turn it s")
    shown = states.parse(seen["text"].removeprefix("turn it "))
    assert np.abs(shown - np.clip(inner.handle, states.low, states.high)).max() <= states.width.max() / 2 + 1e-6
    assert seen["image"].shape == (6, 4, 3) and (seen["image"] == 0).all()
    seen, reward, terminated, truncated, info = env.step("a0 a255 a128\n")
    assert (seen["image"] == 10).all(), "grey shown as colours, as in training"
    assert (reward, terminated, truncated, info) == (0.0, False, False, {})
    assert inner.done[-1][0] == 5 and inner.done[-1][1].ravel() == pytest.approx([1, 0], abs=1 / 255)
    env.step("open sesame\n")
    assert inner.done[-1][0] == 5, "what is no action repeats the last one"
    *_, terminated, truncated, info = env.step("a2 a1 a1\n")
    assert terminated and not truncated and info == {"success": True}
    with pytest.raises(EpisodeError):
        env.step("a2 a1 a1\n")


def test_a_recorded_episode_can_be_said_again(door: Path) -> None:
    for game in load_trajectories(door):
        (again,) = rollout(Repeats(game), lambda: make(GYMNASIUM, data=str(door), id="Door-v0"), 1, seed=0)
        assert again.ended == game.ended and again.metadata["success"] == (game.ended == "terminated")
        assert [turn.text for turn in again.agent_turns] == [turn.text for turn in game.agent_turns]
        assert [len(turn.images) for turn in again.turns] == [len(turn.images) for turn in game.turns]


def test_starts_follow_from_the_seed_and_episodes_end_at_the_limit(door: Path) -> None:
    env = make(GYMNASIUM, data=str(door), max_steps=2)
    first = [env.reset(seed=seed)[0]["text"] for seed in (0, 1, 0)]
    assert first[0] == first[2] != first[1]
    assert env.step("a0 a0 a0\n")[2:4] == (False, False)
    assert env.step("a0 a0 a0\n")[2:] == (False, True, {"success": False})
    with pytest.raises(ConfigError, match="unknown reset option"):
        env.reset(options={"handle": 1})
    assert set(env.symbols()) >= {"\n", "s0", "s255", "a0", "a255"}


def test_another_environment_than_the_datas(door: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="its actions have the dimensions 0, 1.*something else"):
        make(GYMNASIUM, data=str(door), id="Pendulum-v1")
    with pytest.raises(ConfigError, match=r"id='Nowhere-v0' cannot be made"):
        make(GYMNASIUM, data=str(door), id="Nowhere-v0")
    for steps in (-1, 0, "9", True):
        with pytest.raises(ConfigError, match=f"max_steps={steps!r}; give a whole number of at least 1"):
            make(GYMNASIUM, data=str(door), max_steps=steps)
    with pytest.raises(DataError, match="no such file"):
        make(GYMNASIUM, data=str(tmp_path / "other.jsonl"))
    (tmp_path / "said.jsonl").write_text(
        '{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}], "rewards": [0.0]}\n'
    )
    with pytest.raises(DataError, match=r"row 1: field metadata.vectors"):
        make(GYMNASIUM, data=str(tmp_path / "said.jsonl"))


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.int8])
def test_whole_numbers_of_a_box_have_a_bin_each_and_come_back(kind: type) -> None:
    space = spaces.Dict({"few": spaces.Box(0, 10, (2,), kind), "many": spaces.Box(0, 100_000, (1,), np.int32)})
    spec = vector_spec(space_parts(space, "action", "here"))
    assert spec.values.tolist() == [11, 11, 0]
    tokens = VectorTokens(spec.low, spec.high, np.where(spec.values > 0, spec.values, 256))
    for value in range(11):
        found = unflat(tokens.decode(tokens.encode([value, 10 - value, 5000])), space)
        assert found["few"].dtype == kind and found["few"].tolist() == [value, 10 - value]
        assert abs(int(found["many"][0]) - 5000) < 200
    near = unflat([2.999, 3.001, 41.9], space)
    assert near["few"].tolist() == [3, 3] and near["many"].tolist() == [42], "rounded, not cut off"


def test_actions_laid_flat_and_back() -> None:
    space = spaces.Dict(
        {
            "b": spaces.Box(-1, 1, (2, 2), np.float32),
            "a": spaces.Tuple((spaces.Discrete(4, start=2), spaces.MultiDiscrete([3, 5]), spaces.MultiBinary(2))),
        }
    )
    space.seed(0)
    for _ in range(20):
        value = space.sample()
        named = {name: [part] for name, part in leaves(value, "action")}
        back = unflat(flat(named, space_parts(space, "action", "here"), 1, "here")[0], space)
        assert space.contains(back)
        for (_, one), (_, other) in zip(leaves(value, "action"), leaves(back, "action"), strict=True):
            assert np.asarray(one).dtype.kind == np.asarray(other).dtype.kind and np.array_equal(one, other)


class Arm:
    """What roboverse's ``Widow250Env`` is to its users: old gym's five methods, flat pictures, NumPy's global generator."""

    observation_img_dim = 48
    action_space = spaces.Box(-1, 1, (8,), np.float64)

    def __init__(self) -> None:
        self.unwrapped = self
        self.reset()

    def reset(self) -> dict[str, Any]:
        self.place = np.random.uniform(-1, 1, 3)
        return self.get_observation()

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, dict[str, Any]]:
        self.place = self.place + action[:3]
        return self.get_observation(), float(self.place[0] > 0.5), False, {}

    def get_observation(self) -> dict[str, Any]:
        picture = np.zeros((48, 48, 3), np.uint8)
        picture[:10, :, 0] = 200
        return {"state": np.concatenate([self.place, np.zeros(7)]), "image": np.float32(picture.flatten()) / 255.0}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module ``roboverse``, and a buffer collected with it as its own script does."""

    def fake(task: str, **options: Any) -> Any:
        assert options == {"gui": False, "transpose_image": False}
        if task != "Widow250Grasp-v0":
            raise KeyError(f"No registered env with id: {task}")
        return SimpleNamespace(unwrapped=Arm())  # inside whatever wrappers

    module = ModuleType("roboverse")
    module.make = fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "roboverse", module)
    arm, rng, paths = Arm(), np.random.default_rng(0), []
    for _ in range(3):
        arm.reset()
        path: dict[str, list[Any]] = {
            key: [] for key in ("observations", "next_observations", "actions", "rewards", "terminals")
        }
        for _ in range(5):
            action = rng.uniform(-0.9, 0.9, 8)
            before = arm.get_observation()
            after, reward, done, _ = arm.step(action)
            for kind, seen in (("observations", before), ("next_observations", after)):
                path[kind].append({**seen, "image": np.reshape(np.uint8(seen["image"] * 255.0), (48, 48, 3))})
            path["actions"].append(action)
            path["rewards"].append(reward)
            path["terminals"].append(done)
        paths.append(path)
    np.save(tmp_path / "task.npy", paths, allow_pickle=True)  # type: ignore[arg-type]
    convert(RoboverseSource(tmp_path / "task.npy"), tmp_path / "task.jsonl")
    return tmp_path / "task.jsonl"


def test_a_task_of_roboverse_in_the_words_of_its_buffer(checkout: Path) -> None:
    game = next(iter(load_trajectories(checkout)))
    (again,) = rollout(Repeats(game), lambda: make(ROBOVERSE, data=str(checkout), task="Widow250Grasp-v0"), 1, seed=0)
    assert again.metadata["env"] == "Widow250Grasp-v0"
    assert again.ended == "truncated" and sum(1 for _ in again.agent_turns) == 5, "as long as the data's"
    assert again.metadata["success"] == (again.rewards[-1] > 0)
    states = vector_tokens(game.metadata, "observation")
    assert states is not None
    for turn in again.turns:
        if not turn.is_agent:
            assert states.parse(turn.text) is not None and len(turn.images) == 1


def test_seeds_of_roboverse_and_its_one_simulation(checkout: Path) -> None:
    env = make(ROBOVERSE, data=str(checkout), task="Widow250Grasp-v0")
    assert isinstance(env, RoboverseTask)
    try:
        before = np.random.get_state()[1].copy()
        first = [env.reset(seed=seed)[0]["text"] for seed in (0, 1, 0)]
        assert (np.random.get_state()[1] == before).all(), "the global generator is as it was"
        assert first[0] == first[2] != first[1]
        seen, reward, *_ = env.step("a255 a128 a128 a128 a128 a128 a128 a128\n")
        assert seen["image"].shape == (48, 48, 3) and set(np.unique(seen["image"])) <= {0, 199, 200}
        assert reward == float(env._inner.place[0] > 0.5)
        with pytest.raises(ConfigError, match="one simulation a process"):
            make(ROBOVERSE, data=str(checkout), task="Widow250Grasp-v0")
    finally:
        env.close()
    make(ROBOVERSE, data=str(checkout), task="Widow250Grasp-v0").close()


def test_roboverse_missing_or_without_the_task(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="roboverse cannot make it: .*No registered env"):
        make(ROBOVERSE, data=str(checkout), task="Nothing-v0")
    monkeypatch.setattr(Arm, "action_space", spaces.Box(-1, 1, (7,)))
    with pytest.raises(ConfigError, match="its actions have the dimensions"):
        make(ROBOVERSE, data=str(checkout), task="Widow250Grasp-v0")
    monkeypatch.setitem(sys.modules, "roboverse", ModuleType("roboverse"))  # another package of that name
    with pytest.raises(ConfigError, match="put the checkout of avisingh599/roboverse on PYTHONPATH"):
        make(ROBOVERSE, data=str(checkout), task="Widow250Grasp-v0")
