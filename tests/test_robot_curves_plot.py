"""The chart of the robots' learning curves: every row is where it belongs."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from qsft.errors import DataError
from qsft.evaluation import ResultRow, ResultsFile
from qsft.evaluation.panels import chart_command, panel_chart
from qsft.study_file import Study

FOLDER = Path(__file__).parents[1] / "experiments/robots/curves"
PLOT = runpy.run_path(str(FOLDER / "plot.py"))


def test_chart(tmp_path: Path) -> None:
    study = Study.load(FOLDER / "closed-drawer.yaml")
    file = ResultsFile(tmp_path / "results.json")
    for value, run in enumerate(study.runs):
        success = value / len(study.runs)
        ends = (max(success - 0.1, 0.0), min(success + 0.1, 1.0))
        file.add(
            ResultRow(
                "closed-drawer", run.method, 0, 100, 0.5, (0.0, 1.0), success, ends, run.name, "c", "2026-01-01", 1.0
            )
        )
    panels = PLOT["read"](file.path)
    assert list(panels) == ["750 episodes", "3,000 episodes"]
    for title, lines in panels.items():
        points = {method: list(of_method) for method, of_method in lines.items()}
        assert points == {method: [75, 150, 300, 600] for method in ("bc", "q-transformer", "qsft")}, title
    names = [run.name for run in study.runs]
    assert panels["750 episodes"]["qsft"][300].mean == pytest.approx(names.index("qsft, 300 of 750") / len(names))
    assert panel_chart(panels, PLOT["AXES"]).count("<circle") == 2 * 3 * 4
    out = tmp_path / "curves.svg"
    chart_command("about", tmp_path, PLOT["read"], PLOT["AXES"], ["--results", str(file.path)])
    assert out.read_text().rstrip() == panel_chart(panels, PLOT["AXES"])


def test_no_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no row of the curves"):
        PLOT["read"](tmp_path / "results.json")
