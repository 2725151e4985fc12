"""Minari data sets in and out, against Minari's own writer and reader."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

from qsft.data import Trajectory, Turn, load_trajectories, write_trajectories
from qsft.data.action_tokens import VectorTokens
from qsft.data.vector_episodes import convert
from qsft.data.vector_metadata import describe, symbols, vector_tokens
from qsft.errors import ConfigError, DataError

pytest.importorskip("minari")
pytest.importorskip("h5py")

import minari
from minari.data_collector.episode_buffer import EpisodeBuffer
from PIL import Image

from qsft.data.minari import MinariSource, write_minari


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


def make(name: str, observation: spaces.Space, action: spaces.Space, episodes: list[dict], **options) -> None:
    """A data set by Minari itself."""
    buffers = [
        EpisodeBuffer(**{"terminations": ends(e, "terminated"), "truncations": ends(e, "truncated"), **keep(e)})
        for e in episodes
    ]
    with pytest.warns(UserWarning, match="is set to None"):
        minari.create_dataset_from_buffers(name, buffers, observation_space=observation, action_space=action, **options)


def keep(episode: dict) -> dict:
    return {key: value for key, value in episode.items() if key != "ended"}


def ends(episode: dict, how: str) -> list[bool]:
    steps = len(episode["rewards"])
    return [step == steps - 1 and episode.get("ended", "terminated") == how for step in range(steps)]


def box(*shape: int, low: float = -np.inf, high: float = np.inf) -> spaces.Box:
    return spaces.Box(low, high, shape, np.float32)


def test_vectors_become_symbols_and_vectors_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    episodes = [
        {
            "observations": rng.normal(size=(steps + 1, 3)).astype(np.float32),
            "actions": rng.uniform(-2, 2, (steps, 2)).astype(np.float32),
            "rewards": rng.normal(size=steps),
            "ended": ended,
        }
        for steps, ended in ((4, "terminated"), (2, "truncated"))
    ]
    make("toy/arm-v3", box(3), box(2, low=-2, high=2), episodes)
    assert convert(MinariSource("toy/arm-v3"), tmp_path / "arm.jsonl") == 2
    first, second = load_trajectories(tmp_path / "arm.jsonl")
    assert [first.ended, second.ended] == ["terminated", "truncated"]
    assert first.metadata["source"] == "toy/arm-v3" and second.metadata["episode"] == 1
    assert len(first.turns) == 9 and first.rewards == pytest.approx(episodes[0]["rewards"])

    actions, observations = vector_tokens(first.metadata, "action"), vector_tokens(first.metadata, "observation")
    assert actions is not None and observations is not None
    assert (actions.low == -2).all() and (actions.high == 2).all(), "the action space's"
    seen = np.concatenate([episode["observations"] for episode in episodes])
    assert observations.low == pytest.approx(seen.min(0)) and observations.high == pytest.approx(seen.max(0))
    for game, episode in zip((first, second), episodes, strict=True):
        for turn, vector in zip(game.agent_turns, episode["actions"], strict=True):
            assert abs(actions.parse(turn.text) - vector).max() <= 2 / 256 + 1e-6
        shown = [observations.parse(turn.text) for turn in game.turns if turn.role == "user"]
        assert (np.abs(np.array(shown) - episode["observations"]) <= observations.width / 2 + 1e-6).all()
    words = set("".join(turn.text for turn in first.turns + second.turns).split())
    assert words <= set(symbols(first.metadata)) and "\n" in symbols(first.metadata)

    monkeypatch.chdir(tmp_path)
    assert write_minari("arm.jsonl", "back") == 2
    back = minari.MinariDataset(tmp_path / "back/data")
    assert back.action_space == box(2, low=-2, high=2)
    for episode, read in zip(episodes, back.iterate_episodes(), strict=True):
        assert read.observations.shape == episode["observations"].shape
        assert np.abs(read.actions - episode["actions"]).max() <= 2 / 256 + 1e-6
        assert read.rewards == pytest.approx(episode["rewards"])
        assert read.terminations.tolist() == ends(episode, "terminated")
        assert read.truncations.tolist() == ends(episode, "truncated")
        assert f"total_steps={len(episode['rewards'])}" in repr(read)
    convert(MinariSource(tmp_path / "back"), tmp_path / "again.jsonl")
    again = list(load_trajectories(tmp_path / "again.jsonl"))
    assert [[t.text for t in g.turns] for g in again] == [[t.text for t in g.turns] for g in (first, second)]
    assert again[0].metadata["vectors"] == first.metadata["vectors"], "names and bins are those from before"
    convert(MinariSource(tmp_path / "back"), tmp_path / "coarse.jsonl", bins=4)
    coarse = next(iter(load_trajectories(tmp_path / "coarse.jsonl")))
    assert set(coarse.metadata["vectors"]["action"]["bins"]) == {4}
    source = MinariSource(tmp_path / "back")
    source.vectors["action"] = {"names": ["x"], "low": [0], "high": [1], "bins": [4], "prefix": "a"}
    with pytest.raises(DataError, match=r"1 symbols an action and 3 an observation, and have 2 and 3 dimensions"):
        convert(source, tmp_path / "wrong.jsonl")


def test_dicts_pictures_whole_numbers_and_instructions(tmp_path: Path, home: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (3, 40, 32, 3), np.uint8)
    space = spaces.Dict(
        {
            "cam": spaces.Box(0, 255, (40, 32, 3), np.uint8),
            "door": spaces.Discrete(2),
            "arm": spaces.Tuple((box(2), spaces.MultiBinary(1))),
            "mission": spaces.Text(40),
        }
    )
    observations = {
        "cam": pictures,
        "door": np.array([0, 1, 1]),
        "arm": (np.array([[0.0, 5.0], [1.0, 5.0], [0.5, 5.0]], np.float32), np.array([[0], [1], [0]], np.int8)),
        "mission": ["open it"] * 3,
    }
    episode = {"observations": observations, "actions": np.array([7, 5]), "rewards": [0.0, 1.0]}
    make("rooms/door-v0", space, spaces.Discrete(3, start=5), [episode], jpeg_encoding=False)
    convert(MinariSource("rooms/door-v0"), tmp_path / "door.jsonl", instruction=True)
    (game,) = load_trajectories(tmp_path / "door.jsonl")
    assert game.metadata["instruction"] == "open it"
    assert [turn.text for turn in game.agent_turns] == ["a2\n", "a0\n"]
    assert game.metadata["vectors"]["observation"]["names"] == ["arm.0[0]", "arm.0[1]", "arm.1", "door"]
    assert [turn.text for turn in game.turns if turn.role == "user"] == [
        "open it s0 s0 s0 s0\n",
        "open it s255 s0 s1 s1\n",
        "open it s128 s0 s0 s1\n",
    ]
    shown = [Image.open(tmp_path / turn.images[0]) for turn in game.turns if turn.role == "user"]
    assert (np.stack([np.asarray(image) for image in shown]) == pictures).all()

    write_minari(tmp_path / "door.jsonl", "mine/door-v1")
    read = minari.load_dataset("mine/door-v1")
    assert "mine/door-v1" in minari.list_local_datasets()
    assert read.action_space == spaces.Discrete(3, start=5)
    (back,) = read.iterate_episodes()
    assert back.actions.tolist() == [7, 5]
    assert (back.observations["cam"] == pictures).all(), "without loss"
    assert back.observations["vector"] == pytest.approx(
        np.array([[0, 5, 0, 0], [1, 5, 1, 1], [0.5, 5, 0, 1]]), abs=0.002
    )
    assert all(read.observation_space["instruction"].contains(text) for text in back.observations["instruction"])
    convert(MinariSource("mine/door-v1"), tmp_path / "again.jsonl", instruction=True)
    (again,) = load_trajectories(tmp_path / "again.jsonl")
    assert [(turn.role, turn.text) for turn in again.turns] == [(turn.role, turn.text) for turn in game.turns]


def test_instructions_of_a_parquet_file(tmp_path: Path, home: Path) -> None:
    space = spaces.Dict({"arm": box(1), "mission": spaces.Text(40, charset="openit schlß")})
    told = [
        {"arm": np.array([[0.0], [1.0]], np.float32), "mission": [text] * 2} for text in ("open it", "schließe sie")
    ]
    episodes = [{"observations": each, "actions": np.array([1]), "rewards": [0.0]} for each in told]
    make("rooms/door-v0", space, spaces.Discrete(3), episodes)
    convert(MinariSource("rooms/door-v0"), tmp_path / "door.parquet", instruction=True)
    write_minari(tmp_path / "door.parquet", tmp_path / "back")
    found = [episode.instruction for episode in MinariSource(tmp_path / "back").episodes([])]
    assert found == ["open it", "schließe sie"]


def test_instructions_of_some_rows_alone(tmp_path: Path, home: Path) -> None:
    space = spaces.Dict({"arm": box(1), "mission": spaces.Text(40)})
    observations = {"arm": np.array([[0.0], [1.0]], np.float32), "mission": ["open it"] * 2}
    episode = {"observations": observations, "actions": np.array([1]), "rewards": [0.0]}
    make("rooms/door-v0", space, spaces.Discrete(3), [episode, episode])
    convert(MinariSource("rooms/door-v0"), tmp_path / "door.jsonl", instruction=True)
    rows = [json.loads(line) for line in (tmp_path / "door.jsonl").read_text().splitlines()]
    del rows[1]["metadata"]["instruction"]
    (tmp_path / "some.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match=r"some.jsonl: row 2: field metadata.instruction: some rows have one"):
        write_minari(tmp_path / "some.jsonl", tmp_path / "out")


def test_bounds_at_percentiles(tmp_path: Path) -> None:
    actions = np.linspace(0, 100, 101, dtype=np.float32)[:, None]
    episode = {"observations": np.zeros((102, 1), np.float32), "actions": actions, "rewards": np.zeros(101)}
    make("toy/wide-v0", box(1), box(1), [episode])
    make("toy/bounded-v0", box(1), box(1, low=-500, high=500), [episode])
    for name, settings in (("wide", {}), ("bounded", {"percentiles": True})):
        convert(MinariSource(f"toy/{name}-v0"), tmp_path / "wide.jsonl", bins=10, **settings)
        (game,) = load_trajectories(tmp_path / "wide.jsonl")
        tokens = vector_tokens(game.metadata, "action")
        assert tokens is not None and (tokens.low.tolist(), tokens.high.tolist()) == ([1.0], [99.0])
        assert [turn.text for turn in game.agent_turns][:2] == ["a0\n", "a0\n"], "clipped"
        assert game.metadata["vectors"]["observation"]["bins"] == [1], "a dimension that never changes"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actions": [[0.0, np.nan]]}, r"episode 1: field action: step 0: action\[1\] is nan; it must be finite"),
        (
            {"actions": [[0.0, 1.5]]},
            r"episode 1: field action: step 0: action\[1\] is 1.5; .* out of its bounds -1 to 1",
        ),
        ({"actions": [[0.0, 1.00001]]}, r"action\[1\] is 1\.00001\d+; it is out of its bounds -1 to 1"),
        ({"actions": [[0.0]]}, r"episode 1: field action: shape \(1, 1\) for 1 entries of 2 values"),
        ({"observations": [[0.0], [np.inf]]}, r"episode 1: field observation: step 1: observation is inf"),
        ({"observations": [[0.0]] * 3}, r"episode 1: field observation: 3 for 1 actions"),
        ({"rewards": [np.nan]}, r"episode 1: field reward: step 0: reward is nan"),
    ],
)
def test_bad_values(change: dict, message: str, tmp_path: Path) -> None:
    good = {"observations": [[0.0], [1.0]], "actions": [[0.0, 1.0]], "rewards": [0.0]}
    episodes = [
        {key: np.array(value, np.float32) for key, value in episode.items()} for episode in (good, {**good, **change})
    ]
    make("toy/bad-v0", box(1), box(2, low=-1, high=1), episodes)
    with pytest.raises(DataError, match=message) as caught:
        convert(MinariSource("toy/bad-v0"), tmp_path / "bad.jsonl")
    assert "\n" not in str(caught.value) and "toy/bad-v0: episode 1" in str(caught.value)
    assert not [path for path in tmp_path.iterdir() if path.name != "minari"]


def test_values_that_differ_by_rounding_alone(tmp_path: Path) -> None:
    """A bound that float32 stepped over is that bound, and a dimension that only rounding moves never changes."""
    still = [[0.3, 0.0], [np.nextafter(0.3, 1), 1.0], [0.3, 2.0]]
    over = np.nextafter(np.float32(1), np.float32(2))
    episode = {"observations": np.array(still), "actions": np.array([[over], [-1.0]]), "rewards": np.zeros(2)}
    space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    make("toy/rounded-v0", space, spaces.Box(-1, 1, (1,), np.float64), [episode])
    convert(MinariSource("toy/rounded-v0"), tmp_path / "rounded.jsonl", bins=4)
    (game,) = load_trajectories(tmp_path / "rounded.jsonl")
    assert [turn.text for turn in game.agent_turns] == ["a3\n", "a0\n"]
    assert game.metadata["vectors"]["observation"]["bins"] == [1, 4]


def test_what_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing/here-v0: not a Minari data set"):
        MinariSource("nothing/here-v0")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="not a Minari data set"):
        MinariSource(tmp_path / "empty")
    episode = {"observations": np.zeros((2, 1), np.float32), "actions": np.zeros((1, 1), np.float32), "rewards": [0.0]}
    make("toy/silent-v0", box(1), box(1), [episode])
    with pytest.raises(ConfigError, match="silent-v0: episode 0: has no instruction"):
        convert(MinariSource("toy/silent-v0"), tmp_path / "x.jsonl", instruction=True)


def vectors() -> dict:
    action, observation = VectorTokens([-1.0], [1.0], 4), VectorTokens([0], [1], 4, "s")
    return {"action": describe(action, ["x"], [False]), "observation": describe(observation, ["y"], [False])}


SEEN, DONE, LAST = Turn("user", "s0\n"), Turn("assistant", "a3\n", 1.0), Turn("user", "s3\n")


@pytest.mark.parametrize(
    ("turns", "metadata", "message"),
    [
        ([SEEN, DONE, LAST], {}, "row 2: field metadata.vectors: other bins"),
        ([SEEN, DONE], {"vectors": vectors()}, "row 2: field messages: Minari wants an observation"),
        ([SEEN, Turn("assistant", "a4\n", 0.0), LAST], {"vectors": vectors()}, "row 2: action 0: 'a4' is no vector"),
        ([Turn("user", "hi\n"), DONE, LAST], {"vectors": vectors()}, "row 2: observation 0: 'hi' is no vector"),
    ],
)
def test_what_cannot_be_written(turns: list[Turn], metadata: dict, message: str, tmp_path: Path) -> None:
    good = Trajectory([SEEN, DONE, LAST], "terminated", {"vectors": vectors()})
    write_trajectories(tmp_path / "games.jsonl", [good, Trajectory(turns, "terminated", metadata)])
    with pytest.raises(DataError, match=message):
        write_minari(tmp_path / "games.jsonl", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["games.jsonl"], "nothing half-written"


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    turns = [SEEN, DONE, LAST]
    write_trajectories(tmp_path / "games.jsonl", [Trajectory(turns, "terminated")])
    with pytest.raises(DataError, match=r"row 1: field metadata\.vectors: KeyError\('vectors'\); only trajectories of"):
        write_minari(tmp_path / "games.jsonl", tmp_path / "out")
    (tmp_path / "there").mkdir()
    with pytest.raises(DataError, match="there: exists already"):
        write_minari(tmp_path / "games.jsonl", tmp_path / "there")


def test_pictures_instead_of_symbols(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    turns = [Turn("user", "\n", images=("0.png",)), DONE, Turn("user", "\n", images=("1.png",))]
    write_trajectories(tmp_path / "games.jsonl", [Trajectory(turns, "terminated", {"vectors": vectors()})])
    write_minari(tmp_path / "games.jsonl", tmp_path / "out")
    (episode,) = minari.MinariDataset(tmp_path / "out/data").iterate_episodes()
    assert list(episode.observations) == ["image_0"]
    assert (episode.observations["image_0"] == pictures).all()
    assert episode.actions.tolist() == [[0.75]]


def test_missing_pictures(tmp_path: Path) -> None:
    turns = [Turn("user", "s0\n", images=("gone.png",)), Turn("assistant", "a3\n", 1.0), Turn("user", "s3\n")]
    write_trajectories(tmp_path / "games.jsonl", [Trajectory(turns, "terminated", {"vectors": vectors()})])
    with pytest.raises(DataError, match=r"row 1: image .*gone\.png: no such file"):
        write_minari(tmp_path / "games.jsonl", tmp_path / "out")
    (tmp_path / "gone.png").write_text("text")
    with pytest.raises(DataError, match=r"row 1: .*image .*gone\.png: cannot be read"):
        write_minari(tmp_path / "games.jsonl", tmp_path / "out")
    Image.new("RGB", (8, 8)).save(tmp_path / "gone.png")
    with pytest.raises(DataError, match="row 1: observation 1: image_0: 0 pictures, the first one has 1"):
        write_minari(tmp_path / "games.jsonl", tmp_path / "out")


def test_minari_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "minari", None)
    for use in (lambda: MinariSource("a-v0"), lambda: write_minari(tmp_path / "a.jsonl", tmp_path / "a")):
        with pytest.raises(ConfigError, match=r"need Minari .*; install it: pip install 'qsft\[minari\]'"):
            use()
