"""roboverse's buffer files, written here as its scripts write them."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from qsft.data import load_trajectories
from qsft.data.roboverse import RoboverseSource
from qsft.data.vector_episodes import convert
from qsft.data.vector_metadata import vector_tokens
from qsft.errors import DataError, QSFTError


def episode(steps: int, seed: int, done: bool = False) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    seen = [
        {"image": rng.integers(0, 256, (48, 48, 3), np.uint8), "state": rng.normal(size=10), "grip": np.float64(step)}
        for step in range(steps + 1)
    ]
    return {
        "observations": seen[:-1],
        "next_observations": seen[1:],
        "actions": [rng.uniform(-0.9, 0.9, 8) for _ in range(steps)],
        "rewards": [0.0] * (steps - 1) + [1.0],
        "terminals": [False] * (steps - 1) + [done],
        "agent_infos": [{} for _ in range(steps)],
        "env_infos": [{"grasp_success": np.bool_(True), "order": OrderedDict(a=1)} for _ in range(steps)],
    }


def save(path: Path, episodes: list[Any]) -> Path:
    content = np.empty(len(episodes), object)
    content[:] = episodes
    np.save(path, content, allow_pickle=True)
    return path


def test_a_buffer(tmp_path: Path) -> None:
    episodes = [episode(3, 0), episode(2, 1, done=True)]
    np.save(tmp_path / "task.npy", episodes, allow_pickle=True)  # type: ignore[arg-type]  # as roboverse does
    assert convert(RoboverseSource(tmp_path / "task.npy"), tmp_path / "task.jsonl") == 2
    games = list(load_trajectories(tmp_path / "task.jsonl"))
    assert [game.ended for game in games] == ["truncated", "terminated"]
    assert [game.rewards for game in games] == [[0, 0, 1], [0, 1]]
    assert games[1].metadata["source"] == "task.npy"
    for game, logged in zip(games, episodes, strict=True):
        actions, seen = vector_tokens(game.metadata, "action"), vector_tokens(game.metadata, "observation")
        assert actions is not None and seen is not None
        assert (actions.low == -1).all() and (actions.high == 1).all() and actions.dimensions == 8
        assert game.metadata["vectors"]["observation"]["names"][:2] == ["grip", "state[0]"]
        for turn, action in zip(game.agent_turns, logged["actions"], strict=True):
            assert abs(actions.parse(turn.text) - action).max() <= 1 / 256
        shown = [turn for turn in game.turns if turn.role == "user"]
        for turn, truth in zip(shown, [*logged["observations"], logged["next_observations"][-1]], strict=True):
            assert (abs(seen.parse(turn.text)[1:] - truth["state"]) <= seen.width[1:] / 2 + 1e-9).all()
            assert (np.asarray(Image.open(tmp_path / turn.images[0])) == truth["image"]).all()


def test_vectors_without_names(tmp_path: Path) -> None:
    path = {
        "observations": np.arange(6.0).reshape(3, 2),
        "next_observations": np.arange(2.0, 8.0).reshape(3, 2),
        "actions": np.zeros((3, 1)),
        "rewards": np.array([[0.0], [0.0], [2.0]]),
        "terminals": np.array([[False], [False], [True]]),
    }
    convert(RoboverseSource(save(tmp_path / "a.npy", [path])), tmp_path / "a.jsonl", bins=8)
    (game,) = load_trajectories(tmp_path / "a.jsonl")
    assert [turn.text for turn in game.turns[::2]] == ["s0 s0\n", "s2 s2\n", "s5 s5\n", "s7 s7\n"]
    assert (game.rewards, game.ended) == ([0.0, 0.0, 2.0], "terminated")
    del path["next_observations"]
    convert(RoboverseSource(save(tmp_path / "b.npy", [path])), tmp_path / "b.jsonl")
    assert len(next(load_trajectories(tmp_path / "b.jsonl")).turns) == 6


def test_settings_that_cannot_be(tmp_path: Path) -> None:
    source = RoboverseSource(save(tmp_path / "a.npy", [episode(2, 0)]))
    for out, settings, message in (
        ("a.json", {}, r"a\.json: cannot write format \.json"),
        ("a.jsonl", {"bins": 1}, "bins: 1; give at least 2"),
        ("a.jsonl", {"image_size": 0}, "image_size: 0"),
        ("a.jsonl", {"cameras": ["wrist"]}, "cameras: 'wrist' is unknown; there are image"),
    ):
        with pytest.raises(QSFTError, match=message):
            convert(source, tmp_path / out, **settings)


class Exploit:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_no_code_of_a_file_is_run(tmp_path: Path) -> None:
    target = tmp_path / "made by the pickle"
    bad = {**episode(2, 0), "env_infos": [Exploit(target)]}
    save(tmp_path / "bad.npy", [bad])
    with pytest.raises(DataError, match=r"bad\.npy: its pickle asks for posix\.mkdir, and only NumPy arrays"):
        RoboverseSource(tmp_path / "bad.npy")
    assert not target.exists()
    np.load(tmp_path / "bad.npy", allow_pickle=True)
    assert target.exists(), "the file would have run it"


def test_files_of_older_numpy(tmp_path: Path) -> None:
    """NumPy 1 names its module otherwise, and pickles by protocol 3."""
    content = np.empty(1, object)
    content[:] = [episode(2, 0)]
    np.save(tmp_path / "new.npy", content, allow_pickle=True)
    header = (tmp_path / "new.npy").read_bytes().partition(b"\n")[0] + b"\n"
    new, old = b"numpy._core.multiarray", b"numpy.core.multiarray"
    text = pickle.dumps(content, protocol=3)
    assert new in text, "what is replaced"
    # A module's name ends with a newline in that protocol, so that it may become shorter.
    (tmp_path / "old.npy").write_bytes(header + text.replace(new + b"\n", old + b"\n"))
    assert RoboverseSource(tmp_path / "old.npy").action.names[-1] == "action[7]"


def change(field: str, value: Any) -> dict[str, Any]:
    return {**episode(2, 1), field: value}


ZERO = np.zeros(8)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (change("actions", [ZERO, ZERO + 1.5]), r"episode 1: field action: step 1: action\[0\] is 1\.5; .*-1 to 1"),
        (change("actions", [ZERO, ZERO * np.nan]), r"episode 1: field action: step 1: action\[0\] is nan"),
        (change("actions", [ZERO, ZERO[:7]]), r"episode 1: field actions: 7 to 8 dimensions a step"),
        (change("actions", [ZERO[:7]] * 2), r"episode 1: field action: shape \(7,\) a step; the data say 8"),
        (change("rewards", [1.0]), r"episode 1: 2 observations, 2 actions, 1 rewards, 2 terminals"),
        (change("rewards", ["a", "b"]), r"episode 1: field rewards: something else than numbers"),
        (
            change("observations", [{"state": np.zeros(10)}] * 2),
            r"episode 1: field observations: entries with other names",
        ),
        (change("terminals", "ab"), r"episode 1: field terminals: 'ab' is no list of one a step"),
        (change("actions", [ZERO * 1j] * 2), r"episode 1: field actions: something else than numbers"),
        (change("next_observations", {"a": 1}), r"episode 1: field next_observations: is no list"),
        (
            {**change("observations", [{1: ZERO}] * 2), "next_observations": [{1: ZERO}] * 2},
            r"episode 1: field observations: an entry whose name is no text",
        ),
        ({"observations": []}, r"episode 1: field actions: missing"),
    ],
)
def test_bad_episodes(bad: dict, message: str, tmp_path: Path) -> None:
    save(tmp_path / "bad.npy", [episode(2, 0), bad])
    with pytest.raises(DataError, match=message) as caught:
        convert(RoboverseSource(tmp_path / "bad.npy"), tmp_path / "bad.jsonl")
    assert "bad.npy" in str(caught.value) and "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.npy"], "nothing half-written"


def test_missing_frames(tmp_path: Path) -> None:
    bad = episode(2, 1)
    bad["observations"][1] = {**bad["observations"][1], "image": np.zeros((48, 48, 3), np.float32)}
    save(tmp_path / "bad.npy", [episode(2, 0), bad])
    with pytest.raises(DataError, match=r"episode 1: field observations: 11 to 6923 dimensions a step"):
        convert(RoboverseSource(tmp_path / "bad.npy"), tmp_path / "bad.jsonl")
    bad = episode(2, 1)
    for seen in (*bad["observations"], bad["next_observations"][-1]):
        seen["image"] = None
    save(tmp_path / "bad.npy", [episode(2, 0), bad])
    with pytest.raises(DataError, match=r"episode 1: field "):
        convert(RoboverseSource(tmp_path / "bad.npy"), tmp_path / "bad.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.npy"], "nothing half-written"


def test_what_is_no_buffer(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        RoboverseSource(tmp_path / "gone.npy")
    (tmp_path / "text.npy").write_text("hello")
    with pytest.raises(DataError, match=r"not a \.npy file"):
        RoboverseSource(tmp_path / "text.npy")
    np.save(tmp_path / "numbers.npy", np.zeros(3))
    with pytest.raises(DataError, match="an array of float64, not of episodes"):
        RoboverseSource(tmp_path / "numbers.npy")
    save(tmp_path / "cut.npy", [episode(2, 0)])
    content = (tmp_path / "cut.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(content[:-500])
    with pytest.raises(DataError, match="a damaged pickle"):
        RoboverseSource(tmp_path / "cut.npy")
    with pytest.raises(DataError, match="holds no list of episodes"):
        RoboverseSource(save(tmp_path / "none.npy", []))
