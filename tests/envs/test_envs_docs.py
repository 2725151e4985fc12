"""The examples of the documentation run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pages import python_blocks

DOCS = Path(__file__).parents[2] / "docs/environments"


def blocks(page: str) -> list[str]:
    return python_blocks(DOCS / page)


def test_wordle_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    for block in blocks("wordle.md"):
        exec(block, namespace)
    assert len((tmp_path / "games.jsonl").read_text().splitlines()) == 1000
    assert capsys.readouterr().out.strip(), "the game is printed"


def test_index_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use, own, collect = blocks("index.md")
    (tmp_path / "my_games.py").write_text(own)
    monkeypatch.syspath_prepend(tmp_path)
    exec(use, {})
    namespace: dict = {}
    exec(collect, namespace)
    assert len(namespace["games"]) == 100
    assert {game.metadata["env"] for game in namespace["games"]} == {"bisection"}
