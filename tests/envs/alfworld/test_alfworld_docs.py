"""The examples of the page run, and what it says of the options is so."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from qsft.envs import symbols
from qsft.envs.alfworld import ALFWorld
from qsft.envs.alfworld.images import ALFWorldImage
from qsft.envs.alfworld.spec import TASK_TYPES
from tests.pages import python_blocks

PAGE = Path(__file__).parents[3] / "docs/environments/alfworld.md"


def test_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    blocks = python_blocks(PAGE)
    assert len(blocks) >= 4
    for block in blocks:
        exec(block, namespace)
    assert len((tmp_path / "games.jsonl").read_text().splitlines()) == 200
    assert "Your task is to: " in capsys.readouterr().out


def test_options() -> None:
    text = PAGE.read_text(encoding="utf-8")
    written = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", text, re.MULTILINE))
    parameters = inspect.signature(ALFWorldImage).parameters
    assert list(written) == list(parameters), "those of the game of texts first"
    assert list(inspect.signature(ALFWorld).parameters) == list(parameters)[:4]
    for name, parameter in parameters.items():
        if name != "task_types":
            said = repr(parameter.default).replace("'", '"')
            assert written[name].strip("`") == said
    assert all(f"`{kind}`" in text for kind in TASK_TYPES)
    sizes = [len(symbols("alfworld", wording=wording)) for wording in ("move", "put")]
    assert re.findall(r"are the (\d+) words|`wording=\"put\"` (\d+)\)", text) == [
        (str(sizes[0]), ""),
        ("", str(sizes[1])),
    ]
