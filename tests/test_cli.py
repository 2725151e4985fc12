"""The command line: every verb answers, and a mistake is one line and status 2."""

import json
import re

import pytest

from qsft.cli import main


@pytest.mark.parametrize("episodes", ["1", "20"])
def test_evaluate_writes_what_it_prints(tmp_path, capsys, episodes):
    path = tmp_path / "row.json"
    command = ["evaluate", "greedy-information", "--env", "wordle", "--episodes", episodes, "--json", str(path)]
    assert main(command) == 0
    assert "greedy-info" in capsys.readouterr().out
    row = json.loads(path.read_text())
    wanted = {
        "env",
        "policy",
        "episodes",
        "seed",
        "return_mean",
        "return_ci95",
        "success_rate",
        "success_ci95",
        "seconds",
    }
    assert wanted <= set(row)
    assert row["success_rate"] == 1.0
    assert -4 <= row["return_mean"] <= 0


def test_collect_then_validate(tmp_path, capsys):
    path = tmp_path / "games.jsonl"
    assert main(["collect", "wordle", "--policy", "mixture", "--episodes", "30", "--out", str(path)]) == 0
    assert main(["validate", str(path), "--json", str(tmp_path / "summary.json")]) == 0
    assert json.loads((tmp_path / "summary.json").read_text())["episodes"] == 30
    assert "30" in capsys.readouterr().out


def test_play_a_pinned_game(capsys):
    assert main(["play", "greedy-information", "--env", "wordle", "--pin", "secret=false"]) == 0
    assert "f a l s e" in capsys.readouterr().out


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "random", "--env", "wordle"],
        ["collect", "wordle", "--policy", "random", "--episodes", "1", "--out", "never.jsonl"],
        ["play", "random", "--env", "wordle"],
        ["train", "sft", "--data", "d.jsonl", "--model", "m", "--out", "never"],
        ["demo", "--out", "never"],
    ],
)
def test_a_seed_is_not_negative(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--seed", "-1"])
    assert "argument --seed: -1 is less than 0" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["/", ".", "..", "folder"])
def test_a_folder_in_the_place_of_a_file(place, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    assert main(["evaluate", "random", "--env", "wordle", "--episodes", "1", "--json", place]) == 2
    assert f"qsft: {place}: is a folder; give the name of a file" in capsys.readouterr().err.splitlines()
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("place", ["folder", "file/row.json"])
@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "random", "--env", "wordle", "--json"],
        ["validate", "games.jsonl", "--json"],
        ["reproduce", "study.yaml", "--results"],
    ],
)
def test_a_place_for_results_is_looked_at_before_the_work(command, place, capsys, tmp_path, monkeypatch):
    def work(*_, **__):
        raise AssertionError("the work has begun")

    for worker in ("qsft.cli.player", "qsft.data.summarise", "qsft.study._untrained"):
        monkeypatch.setattr(worker, work)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "study.yaml").write_text(STUDY)
    assert main([*command, place]) == 2
    assert re.search(
        r"is a folder; give the name of a file|cannot be made|cannot be (read|written)", capsys.readouterr().err
    )


STUDY = """
env: wordle
collect: {}
decoding: {}
select: {episodes: 1, seed: 0}
test: {episodes: 1, seed: 1}
runs: [{name: random, method: scripted}]
"""


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "nobody", "--env", "wordle"],
        ["evaluate", "random", "--env", "chequers"],
        ["evaluate", "random", "--env", "wordle", "--env-option", "feedback"],
        ["validate", "nowhere.jsonl"],
        ["train", "alchemy", "--data", "d.jsonl", "--model", "m", "--out", "never"],
        ["train", "sft", "--out", "never"],
        ["reproduce", "nowhere.yaml"],
        ["play", "random", "--env", "wordle", "--values"],
    ],
)
def test_a_mistake_is_one_line_and_status_2(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(command) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("qsft: ")
    assert "\n" not in error
    assert list(tmp_path.iterdir()) == [], "nothing may be left behind"
