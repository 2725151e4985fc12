"""The tables of the experiments' pages: a column an environment, methods in rows, what ties with the best in bold."""

from __future__ import annotations

import runpy
from pathlib import Path

from qsft.evaluation import ResultRow

FOLDER = Path(__file__).parents[1] / "experiments"
TABLES = runpy.run_path(str(FOLDER / "tables.py"))


def result(env: str, config: str, value: float, decoded: bool = True) -> ResultRow:
    extra = {"decoding": {"temperature": 0}} if decoded else {}
    ends = (value - 0.5, value + 0.5)
    return ResultRow(env, "m", 0, 500, value, ends, 0.5, (0.4, 0.6), config, "c", "2026-01-01", 1.0, extra)


def test_side_by_side() -> None:
    rows = [
        result("maze", "SFT", -40.0),
        result("maze", "Q-SFT", -12.0),
        result("maze", "optimal", -7.0, decoded=False),
        result("wordle", "Q-SFT", -3.0),
        result("wordle", "AWR", -2.5),
        result("maze", "AWR", -7.4),
        result("maze", "AWR, after one epoch", -30.0),
        result("wordle", "SFT", -4.5),
    ]
    assert TABLES["side_by_side"](rows).splitlines() == [
        "| mean return | maze | wordle |",
        "|---|---:|---:|",
        "| SFT | -40.00 | -4.50 |",
        "| Q-SFT | -12.00 | **-3.00** |",
        "| AWR | **-7.40** | **-2.50** |",
    ]
