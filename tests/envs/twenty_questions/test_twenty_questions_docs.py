"""The examples of the page run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pages import python_blocks

PAGE = Path(__file__).parents[3] / "docs/environments/twenty-questions.md"


def test_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    blocks = python_blocks(PAGE)
    assert len(blocks) >= 3
    for block in blocks:
        exec(block, namespace)
    assert len((tmp_path / "games.jsonl").read_text().splitlines()) == 1000
