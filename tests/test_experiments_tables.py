"""The tables of the experiments' pages: a column an environment, methods in rows, what ties with the best in bold."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from unittest import mock

import pytest

from qsft.evaluation import ResultRow, ResultsFile

FOLDER = Path(__file__).parents[1] / "experiments"
TABLES = runpy.run_path(str(FOLDER / "tables.py"))


def result(env: str, config: str, value: float, decoded: bool = True, seed: int = 0, half: float = 0.5) -> ResultRow:
    extra = {"decoding": {"temperature": 0}} if decoded else {}
    ends = (value - half, value + half)
    return ResultRow(env, "m", seed, 500, value, ends, 0.5, (0.4, 0.6), config, "c", "2026-01-01", 1.0, extra)


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


def test_ahead_of_cancels_what_a_seed_is_worth() -> None:
    # seeds differ by 10, methods by 2.1, 1.9 and 2.0: intervals of the means overlap, that of the difference does not
    rows = []
    for seed, ahead in enumerate((2.1, 1.9, 2.0)):
        rows += [
            result("maze", "SFT", -40.0 + 10 * seed, seed=seed, half=1e-3),
            result("maze", "Q-SFT", -40.0 + 10 * seed + ahead, seed=seed, half=1e-3),
            result("maze", "AWR", -40.0 + 10 * seed - ahead, seed=seed, half=1e-3),
            result("maze", "SFT, on", -39.0, seed=seed),
            result("maze", "optimal", -7.0, decoded=False, seed=seed),
        ]
    rows += [result("wordle", "SFT", -3.0), result("wordle", "Q-SFT", -2.0), result("wordle", "AWR", -2.0)]
    # Student's t with two degrees of freedom, 4.3027, times .1 / sqrt(3)
    assert TABLES["ahead_of"]("SFT", rows).splitlines() == [
        "| ahead of SFT by | maze |",
        "|---|---:|",
        "| Q-SFT | **2.00 [1.75, 2.25]** |",
        "| AWR | -2.00 [-2.25, -1.75] |",
    ]
    alone = [row for row in rows if row.env == "maze"]
    assert [line.split(" |")[0] for line in TABLES["ahead_of"]("SFT", alone).splitlines()[2:]] == [
        "| Q-SFT",
        "| AWR",
        "| SFT, on",
    ]
    # the same seed's difference has the luck of the episodes too
    wide = [result(row.env, str(row.config), row.return_mean, seed=row.seed, half=3.0) for row in alone]
    assert "| Q-SFT | 2.00 [" in TABLES["ahead_of"]("SFT", wide)


def test_against_a_run_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "results.json"
    ResultsFile(path).add(result("maze", "SFT", -40.0))
    with pytest.raises(SystemExit), mock.patch.object(sys, "argv", ["tables.py", str(path), "--against", "sft"]):
        TABLES["main"]()
    assert f"{path} has no run 'sft'" in capsys.readouterr().err
