"""The examples of the documentation run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pages import python_blocks

PAGE = Path(__file__).parents[3] / "docs/environments/chess.md"


def test_chess_page(
    stockfish: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("qsft.envs.chess.collect._cores", lambda: 1)
    namespace: dict = {}
    blocks = python_blocks(PAGE)
    assert len(blocks) >= 4
    for block in blocks:
        exec(block, namespace)
    assert len((tmp_path / "endgames.jsonl").read_text().splitlines()) == 8
    assert "a b c d e f g h" in capsys.readouterr().out, "the board is printed"
