"""The examples of the documentation run."""

from __future__ import annotations

from pathlib import Path

import pytest

from qsft.envs.manipulation.collect import ManipulationPlayer
from tests.pages import python_blocks

PAGE = Path(__file__).parents[3] / "docs/environments/manipulation.md"


@pytest.mark.usefixtures("opengl")
def test_manipulation_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ManipulationPlayer, "size", 4)
    blocks = python_blocks(PAGE)
    assert len(blocks) == 6
    namespace: dict = {}
    for block in blocks:
        exec(block.replace('"noisy", 32', '"noisy", 4'), namespace)
    assert (tmp_path / "drawer.gif").stat().st_size > 1000
    assert "'effector_x'" in capsys.readouterr().out
