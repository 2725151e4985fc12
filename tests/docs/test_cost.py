"""The table of what each method costs names every method."""

from __future__ import annotations

import re
from pathlib import Path

from qsft.training.runs import METHODS

PAGE = Path(__file__).parents[2] / "docs/cost.md"


def test_every_method_has_its_cost() -> None:
    section = PAGE.read_text(encoding="utf-8").partition("## Every method")[2]
    rows = re.findall(r"^\| ([a-z][^|]*?) \| [\d,]+ \|", section, re.MULTILINE)
    named = [name.strip() for row in rows for name in row.split(",")]
    assert {*METHODS} <= {*named}
    assert {*named} - {*METHODS} == {"Monte-Carlo", "balanced"}, "and nothing else but kinds of Q-SFT"
