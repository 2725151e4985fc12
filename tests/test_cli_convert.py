"""`qsft convert`: the commands of its page, its example, and its mistakes."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from qsft.cli import main
from qsft.data import TrajectoryTokenizer, load_trajectories
from tests.data import test_lerobot as lerobot
from tests.data import test_roboverse as roboverse
from tests.pages import python_blocks

PAGE = Path(__file__).parents[1] / "docs/commands/convert.md"


def command(start: str) -> list[str]:
    (line,) = (line for line in PAGE.read_text().splitlines() if line.startswith(f"qsft convert {start}"))
    return shlex.split(line)[1:]


def test_roboverse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    roboverse.save(tmp_path / "drawer_task.npy", [roboverse.episode(2, 0), roboverse.episode(3, 1)])
    assert main(command("drawer_task.npy")) == 0
    assert capsys.readouterr().out == "2 episodes in task.jsonl\n"
    assert len(list(Path("task-images").rglob("*.png"))) == 7


def test_lerobot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    lerobot.Folder().write(tmp_path / "pusht")
    assert main(command("pusht")) == 2
    assert "--final-reward 1 if all" in capsys.readouterr().err
    assert main([*command("pusht"), "--final-reward", "2", "--bins", "16", "--instruction"]) == 0
    games = list(load_trajectories("pusht.jsonl"))
    assert [game.rewards[-1] for game in games] == [2.0] * 3
    assert games[0].turns[0].text.startswith("sort s") and set(games[0].metadata["vectors"]["action"]["bins"]) == {16}


def test_minari_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("minari")
    pytest.importorskip("h5py")
    from tests.data.test_minari import box, make

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    episode = {
        "observations": np.eye(3, 2, dtype=np.float32),
        "actions": np.eye(2, 4, dtype=np.float32),
        "rewards": [0, 1],
    }
    make("D4RL/door/human-v2", box(2), box(4, low=-1, high=1), [episode])
    assert main(command("D4RL")) == 0
    names: dict = {}
    for block in python_blocks(PAGE):
        exec(block, names)
    row = TrajectoryTokenizer(AutoTokenizer.from_pretrained("tokenizer"))(names["game"])
    assert sum(row["agent_mask"]) == 2 * (4 + 1), "two actions of four symbols and a newline"
    Path("door.jsonl").rename("drawer.jsonl")
    assert main(command("drawer.jsonl")) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 episodes in robots/closed-drawer-v0"
    assert (tmp_path / "minari/robots/closed-drawer-v0/data/main_data.hdf5").exists()
    assert main([*command("drawer.jsonl")[:-1], "./mine-v0"]) == 0
    assert Path("mine-v0/data/main_data.hdf5").exists(), "a path, not a name"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x.npy", "--from", "roboverse", "--final-reward", "1"], "--final-reward: goes with --from lerobot"),
        (["x.jsonl", "--to", "minari", "--image-size", "8"], "--image-size: goes with --from, not with --to"),
        (["x.npy", "--from", "roboverse"], "x.npy: cannot be read"),
        (["x", "--from", "lerobot"], "info.json: no such file"),
    ],
)
def test_mistakes(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["convert", *arguments, "--out", "out.jsonl"]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())
