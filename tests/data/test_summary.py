"""What `qsft validate` shows."""

from __future__ import annotations

import json

import numpy as np
import pytest
from rich.console import Console

from qsft.data import Trajectory, TrajectoryTokenizer, Turn, render, summarise, write_trajectories
from qsft.data.pictures import png
from qsft.errors import DataError
from tests.data.families import byte_bpe, episode

GAMES = [
    episode(("user", "ab\n"), ("assistant", "c\n", 1.0)),
    episode(("user", "ab\n"), ("assistant", "c\n", 1.0), ("user", "d\n"), ("assistant", "e\n", 2.0), ended="truncated"),
    episode(("user", "ab\n"), ("assistant", "c\n", -4.0)),
]


@pytest.fixture
def path(tmp_path):
    made = tmp_path / "games.jsonl"
    write_trajectories(made, GAMES)
    row = {"messages": [{"role": "user", "content": "é"}, {"role": "assistant", "content": "f\n"}], "rewards": [6]}
    with made.open("a") as file:
        file.write(json.dumps(row) + "\n")
    return made


def test_counts(path):
    summary = summarise(path)
    assert summary.to_dict() == {
        "path": str(path),
        "episodes": 4,
        "turns": 10,
        "agent_turns": 5,
        "characters": 5 + 9 + 5 + 3,
        "tokens": None,
        "agent_tokens": None,
        "longest": None,
        "return_mean": 1.5,
        "return_sd": pytest.approx((61 / 3 - 4 / 3 * 1.5**2 + (1 / 3)) ** 0.5),
        "return_min": -4.0,
        "return_max": 6.0,
        "histogram": [[float(low), float(low + 1), {-4: 1, 1: 1, 3: 1, 5: 1}.get(low, 0)] for low in range(-4, 6)],
        "agent_turns_mean": 1.25,
        "agent_turns_min": 1,
        "agent_turns_max": 2,
        "terminated_share": 0.75,
        "ended_absent_share": 0.25,
    }
    assert json.loads(json.dumps(summary.to_dict())) == summary.to_dict()


def test_tokens(path):
    tokenized = TrajectoryTokenizer(byte_bpe())
    summary = summarise(path, tokenized)
    rows = [tokenized(game) for game in GAMES]
    assert summary.tokens == sum(len(row["input_ids"]) for row in rows) + len(tokenized.tokenizer.encode("éf\n"))
    assert summary.agent_tokens == 2 * 5
    assert summary.longest == len(rows[1]["input_ids"])
    assert summarise(path, byte_bpe()) == summary


def test_the_tokenizer_finds_what_rows_alone_do_not_show(path):
    summarise(path)
    write_trajectories(path, [*GAMES, episode(("user", "a\n"), ("assistant", "no newline"))])
    with pytest.raises(DataError, match=r"games.jsonl: row 4: the agent's text 'no newline' does not end with"):
        summarise(path, TrajectoryTokenizer(byte_bpe()))


def test_one_episode(tmp_path):
    write_trajectories(tmp_path / "one.jsonl", GAMES[:1])
    summary = summarise(tmp_path / "one.jsonl")
    assert (summary.return_mean, summary.return_sd, summary.return_min, summary.return_max) == (1.0, 0.0, 1.0, 1.0)
    assert sum(count for _, _, count in summary.histogram) == 1
    shown(summary)


@pytest.mark.parametrize("rewards", [([0.1, 0.2], [0.3]), ([1e17], [1e17]), ([0.0], [5e-324])])
def test_returns_that_differ_by_rounding_alone(rewards, tmp_path):
    episodes = [
        episode(*[turn for r in some for turn in (("user", "a\n"), ("assistant", "b\n", r))]) for some in rewards
    ]
    write_trajectories(tmp_path / "d.jsonl", episodes)
    summary = summarise(tmp_path / "d.jsonl")
    assert [count for _, _, count in summary.histogram] == [2]
    shown(summary)


def shown(summary):
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(render(summary))
    return console.export_text()


def test_rendering(path):
    text = shown(summarise(path, TrajectoryTokenizer(byte_bpe())))
    for part in (
        "episodes",
        "10 (5 of the agent)",
        "1.25 (1 to 2)",
        "1.500 ±",
        "-4 to 6",
        "75.0%",
        "25.0% (taken as terminated)",
        "-4 to -3 ████████████████████████████████████████ 1",
    ):
        assert part in text
    assert len(text.splitlines()) < 30
    assert "taken as terminated" not in shown(summarise_without_absent(path))


def summarise_without_absent(path):
    write_trajectories(path, GAMES)
    return summarise(path)


def test_pictures_are_read_without_a_tokenizer_too(tmp_path):
    turns = [Turn("user", "up?", images=("a.png",)), Turn("assistant", "up", 1.0)]
    write_trajectories(tmp_path / "games.jsonl", [Trajectory(turns, "terminated")])
    with pytest.raises(DataError, match=r"games\.jsonl: row 1: turn 1: image .*a\.png: no such file"):
        summarise(tmp_path / "games.jsonl")
    (tmp_path / "a.png").write_bytes(b"text")
    with pytest.raises(DataError, match=r"row 1: turn 1: image .*a\.png: cannot be read"):
        summarise(tmp_path / "games.jsonl")
    (tmp_path / "a.png").write_bytes(png(np.zeros((4, 4, 3), np.uint8)))
    assert summarise(tmp_path / "games.jsonl").episodes == 1
