"""The examples of docs/data.md run as they stand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import datasets
import pytest
from transformers import AutoTokenizer

from qsft.data import load_trajectories, trajectory_from_row
from tests.data.families import chat

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_the_example_row():
    (example,) = blocks("json")
    assert trajectory_from_row(json.loads(example)).rewards == [-1.0, 0.0]


def test_the_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda name: chat("chatml"))
    chats = [
        {"messages": [{"role": role, "content": "x"} for role in ("user", "assistant") * turns], "solved": turns == 2}
        for turns in (1, 2)
    ]
    Path("chats.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    names = {}
    for block in blocks("python"):
        exec(block, names)
    assert [episode.rewards for episode in load_trajectories("episodes.parquet")] == [[0.0], [0.0, 1.0]]
    assert len(names["best"]) == 1


@pytest.mark.parametrize("part", re.findall(r"^\| `(.*?)` \|", PAGE.split("| message contains")[1], re.MULTILINE))
def test_the_messages_are_those_of_the_code(part):
    source = "".join(path.read_text() for path in (Path(__file__).parents[2] / "src" / "qsft" / "data").glob("*.py"))
    for phrase in re.split(r" \.\.\. ?|` / `|\d+|'bot'", part):
        assert phrase.strip(" '") in source
