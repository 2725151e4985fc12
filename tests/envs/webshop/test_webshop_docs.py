"""The examples of the documentation run, and its table of options is the environment's."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from qsft.envs.webshop import WebShop
from tests.pages import python_blocks

PAGE = Path(__file__).parents[3] / "docs/environments/webshop.md"


def test_webshop_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    blocks = python_blocks(PAGE)
    assert len(blocks) == 5
    for block in blocks:
        exec(block, namespace)
    assert len((tmp_path / "shopping.jsonl").read_text().splitlines()) == 100


def test_options() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `?([^`|]*?)`? \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    parameters = inspect.signature(WebShop).parameters
    assert [name for name, _ in rows] == list(parameters)
    for name, default in rows:
        assert default.strip('"').replace(",", "") == str(parameters[name].default), name
