"""Rows and their file: content, bad files, processes that add at once, and nothing half-written."""

import json
import math
import multiprocessing
import os
import threading
import time

import pytest

from qsft.data.trajectory import Trajectory, Turn
from qsft.errors import DataError
from qsft.evaluation import (
    ResultRow,
    ResultsFile,
    evaluation_row,
    mean_interval,
    paired_returns,
    result_row,
    rollout,
    row_key,
    success_interval,
)
from tests.evaluation.toys import Counting, Guess, row

FORK = multiprocessing.get_context("fork")


def game(rewards, success, episode=0, **metadata):
    turns = [Turn("user", "go\n")] + [Turn("assistant", "x\n", reward) for reward in rewards]
    found = {"env": "toy", "policy": "me", "seed": 4, "episode": episode, "success": success, **metadata}
    return Trajectory(turns, "terminated", found)


def test_evaluation_row_by_hand():
    games = [game([-1, -1, 0], True, 0), game([0], True, 1), game([-1] * 6, False, 2)]
    broken = Trajectory([], None, {"env": "toy", "policy": "me", "seed": 4, "episode": 3, "error": "OSError: x"})
    found = evaluation_row([*games, broken], seconds=1.23456)
    returns, success = mean_interval([-2, 0, -6]), success_interval(2, 3)
    assert found == {
        "env": "toy",
        "policy": "me",
        "episodes": 3,
        "seed": 4,
        "return_mean": pytest.approx(-8 / 3),
        "return_ci95": [returns.low, returns.high],
        "success_rate": pytest.approx(2 / 3),
        "success_ci95": [success.low, success.high],
        "turns_mean": pytest.approx(10 / 3),
        "errors": 1,
        "seconds": 1.235,
    }
    assert json.loads(json.dumps(found)) == found
    assert evaluation_row(games[:1], seconds=0)["return_ci95"] == [None, None]


def test_evaluation_row_refuses_what_is_no_evaluation():
    broken = Trajectory([], None, {"env": "toy", "policy": "me", "seed": 4, "episode": 3, "error": "OSError: x"})
    with pytest.raises(DataError, match=r"1 of 1 failed, the first with OSError: x"):
        evaluation_row([broken], seconds=0)
    with pytest.raises(DataError, match="no episode"):
        evaluation_row([], seconds=0)
    with pytest.raises(DataError, match="differ in 'seed'"):
        evaluation_row([game([0], True), game([0], True, seed=5)], seconds=0)
    unfinished = game([0], True)
    unfinished.ended = None
    with pytest.raises(DataError, match="not finished"):
        evaluation_row([unfinished], seconds=0)


def test_result_row_of_an_evaluation_keeps_what_does_not_fit_in_extra():
    evaluation = evaluation_row(list(rollout(Counting(), Guess, 40, 9)), seconds=0.5)
    found = result_row(evaluation, method="count", seed=2, config="a.yaml", command="x", seconds=60, extra={"gpu": 1})
    assert (found.env, found.method, found.seed, found.episodes, found.seconds) == ("guess", "count", 2, 40, 60)
    assert found.extra == {"policy": "counting", "errors": 0, "episode_seed": 9, "gpu": 1}
    assert found.episode_seed == 9
    assert result_row(evaluation, method="count", seed=9, config="a", command="x", seconds=1).episode_seed == 9
    assert ResultRow.from_json(found.to_json()) == found


def test_file_round_trip_one_row_a_line(tmp_path):
    file = ResultsFile(tmp_path / "deep" / "results.json")
    assert file.rows() == []
    rows = [row(), row(seed=1, extra={"é": [1]}), row(method="sft", config="a.yaml", return_ci95=(-math.inf, math.inf))]
    for number, item in enumerate(rows):
        assert not file.has(item.key)
        file.add(item)
        assert file.has(item.key)
        lines = file.path.read_text(encoding="utf-8").splitlines()
        assert (lines[0], lines[-1], len(lines)) == ("[", "]", number + 3)
    assert file.rows() == rows
    for line, item in zip(lines[1:-1], rows, strict=True):
        assert ResultRow.from_json(json.loads(line.rstrip(","))) == item
    assert '"é"' in lines[2]
    assert json.loads(lines[3])["return_ci95"] == [None, None]
    assert list(json.loads(lines[1].rstrip(","))) == [
        "env", "method", "seed", "episodes", "return_mean", "return_ci95", "success_rate", "success_ci95",
        "config", "command", "date", "seconds",
    ]  # fmt: skip


def test_key_is_environment_method_config_and_seed(tmp_path):
    file = ResultsFile(tmp_path / "results.json")
    file.add(row(config={"a": 1, "b": 2}))
    assert file.has(row_key("wordle", "qsft", {"b": 2, "a": 1}, 0))
    for other in [
        row_key("chess", "qsft", {"a": 1, "b": 2}, 0),
        row_key("wordle", "sft", {"a": 1, "b": 2}, 0),
        row_key("wordle", "qsft", {"a": 1}, 0),
        row_key("wordle", "qsft", {"a": 1, "b": 2}, 1),
    ]:
        assert not file.has(other)
    with pytest.raises(DataError, match=r"already holds env wordle, method qsft, seed 0"):
        file.add(row(config={"b": 2, "a": 1}, return_mean=-2.1))
    assert len(file.rows()) == 1


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("env", "", "not empty"),
        ("method", 3, "not empty"),
        ("seed", 1.5, "whole number"),
        ("seed", True, "whole number"),
        ("episodes", 0, "at least 1"),
        ("return_mean", "x", "finite"),
        ("return_mean", math.nan, "finite"),
        ("return_ci95", [1], "low, high"),
        ("return_ci95", [-1.5, -1.0], "must contain return_mean -2.0"),
        ("success_rate", 1.5, "from 0 to 1"),
        ("success_ci95", [0.95, 1.0], "must contain success_rate 0.9"),
        ("config", None, "object"),
        ("command", "", "not empty"),
        ("date", "yesterday", "date and time"),
        ("seconds", -1, "at least 0"),
        ("extra", [], "object"),
        ("speed", 3, "unknown"),
    ],
)
def test_bad_fields_are_named_with_file_and_row(tmp_path, field, value, message):
    path = tmp_path / "results.json"
    bad = {**row(seed=1).to_json(), field: value}
    path.write_text(json.dumps([row().to_json(), bad]))
    with pytest.raises(DataError, match=message) as error:
        ResultsFile(path).rows()
    text = str(error.value)
    assert text.startswith(f"{path}, row 2: field '{field}'")
    assert "\n" not in text


def test_bad_files_are_named(tmp_path):
    path = tmp_path / "results.json"
    missing = row().to_json()
    del missing["seed"]
    good = json.dumps(row().to_json())
    for content, message in [
        ("[\n{\n", r"results.json, line 3: not JSON"),
        (f"[\n{good},\n]\n", r"results.json, line \d: not JSON"),
        ("{}", "holds a dict, not a list"),
        ("[3]", "row 1: is a int"),
        (json.dumps([missing]), "row 1: field 'seed' is missing"),
        (f"[{good}, {good}]", "row 2: env wordle.* twice"),
    ]:
        path.write_text(content)
        with pytest.raises(DataError, match=message):
            ResultsFile(path).rows()
        with pytest.raises(DataError, match=message):
            ResultsFile(path).add(row(seed=5))
        assert path.read_text() == content
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="cannot be read"):
        ResultsFile(path).rows()


def test_rows_that_cannot_be_written_change_nothing(tmp_path):
    file = ResultsFile(tmp_path / "results.json")
    file.add(row())
    before = file.path.read_text()
    for bad in [row(seed=1, extra={"x": math.nan}), row(seed=1, extra={"x": object()}), row(seed=1, seconds=-1)]:
        with pytest.raises(DataError):
            file.add(bad)
    assert file.path.read_text() == before
    assert os.listdir(tmp_path) == ["results.json"]


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    file = ResultsFile(tmp_path / "results.json")
    file.add(row())
    before = file.path.read_text()

    def full(*_):
        raise OSError(28, "No space left on device")

    for function in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, function, full)
            with pytest.raises(DataError, match=r"results.json: cannot be written \(No space left on device\)"):
                file.add(row(seed=1))
        assert file.path.read_text() == before
        assert os.listdir(tmp_path) == ["results.json"]
    file.add(row(seed=1))
    assert len(file.rows()) == 2


def test_a_link_stays_one(tmp_path):
    (tmp_path / "shared").mkdir()
    real, link = tmp_path / "shared/results.json", tmp_path / "results.json"
    link.symlink_to("shared/results.json")
    for seed in range(2):  # the first makes what the link points to
        ResultsFile(link).add(row(seed=seed))
    ResultsFile(real).add(row(seed=2))
    assert link.is_symlink() and not real.is_symlink()
    assert [r.seed for r in ResultsFile(link).rows()] == [r.seed for r in ResultsFile(real).rows()] == [0, 1, 2]
    assert (os.listdir(tmp_path / "shared"), sorted(os.listdir(tmp_path))) == (
        ["results.json"],
        ["results.json", "shared"],
    )


def add_many(path, method, go):
    go.wait()
    for seed in range(15):
        ResultsFile(path).add(row(method=method, seed=seed))


def test_processes_that_add_at_once_lose_nothing(tmp_path):
    path = tmp_path / "results.json"
    link = tmp_path / "link.json"
    link.symlink_to(path)
    go = FORK.Event()
    processes = [FORK.Process(target=add_many, args=(link if name == "b" else path, name, go)) for name in "abc"]
    for process in processes:
        process.start()
    go.set()
    # Whatever a reader sees meanwhile is whole.
    while any(process.is_alive() for process in processes):
        ResultsFile(path).rows()
        time.sleep(0.005)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert {(r.method, r.seed) for r in ResultsFile(path).rows()} == {(m, s) for m in "abc" for s in range(15)}
    assert sorted(os.listdir(tmp_path)) == ["link.json", "results.json"]


def test_threads_that_add_at_once_lose_nothing(tmp_path):
    file = ResultsFile(tmp_path / "results.json")
    threads = [threading.Thread(target=file.add, args=(row(seed=seed),)) for seed in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(r.seed for r in file.rows()) == list(range(12))


def hold(path, held):
    with ResultsFile(path)._locked():
        held.set()
        time.sleep(60)


def test_a_killed_process_frees_the_lock(tmp_path):
    file = ResultsFile(tmp_path / "results.json")
    held = FORK.Event()
    holder = FORK.Process(target=hold, args=(file.path, held))
    holder.start()
    assert held.wait(timeout=30)
    added = threading.Thread(target=file.add, args=(row(),))
    added.start()
    time.sleep(0.2)
    assert added.is_alive()
    assert file.rows() == []
    holder.kill()
    holder.join()
    added.join(timeout=10)
    assert not added.is_alive()
    assert len(file.rows()) == 1


def test_paired_returns_match_by_episode():
    first = [game([-1, 0], True, 0), game([0], True, 1), game([-1] * 3, False, 2)]
    second = [game([0], True, 2), game([-1] * 2, False, 0)]
    second.append(Trajectory([], None, {"env": "toy", "policy": "me", "seed": 4, "episode": 1, "error": "x"}))
    assert paired_returns(first, second) == ([-1, -3], [-2, 0], [0, 2])
    with pytest.raises(DataError, match="different environments or seeds"):
        paired_returns(first, [game([0], True, 0, seed=5)])
    with pytest.raises(DataError, match="no episode"):
        paired_returns(first[:1], second[:1])
