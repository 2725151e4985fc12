"""Return against games to learn from, a panel a model size, a line a method with its 95% interval: an SVG file.

python experiments/low-data/plot.py [--results experiments/low-data/results.json] [--out FILE]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from qsft.errors import DataError
from qsft.evaluation import GAME_SCALES, Estimate, ResultRow, ResultsFile, summarise
from qsft.evaluation.panels import Axes, chart_command
from qsft.study_file import Study

HERE = Path(__file__).parent
#: Study and title of each panel, from left to right.
PANELS = {"small": "two layers of 128", "large": "four layers of 256"}
AXES = Axes("return", "games", ("data", GAME_SCALES["twenty-questions"].data_mean))


def read(results: Path) -> dict[str, dict[str, dict[int, Estimate]]]:
    """Games -> return, for each method of each panel, of the rows that there are.

    Raises:
        DataError: there is no row of either study.
    """
    rows = ResultsFile(results).rows()
    panels: dict[str, dict[str, dict[int, Estimate]]] = {}
    for name, title in PANELS.items():
        study = Study.load(HERE / f"{name}.yaml")
        games = {run.name: int(study.collect[run.data]["episodes"]) for run in study.runs}
        found = [row for row in rows if row.config in games]
        lines: dict[str, dict[int, Estimate]] = {}
        for summary in summarise(found) if found else ():
            config = str(summary.config)
            runs = [row for row in found if row.config == config]
            lines.setdefault(config.partition(",")[0], {})[games[config]] = of_two(runs) or summary.returns
        if lines:
            panels[title] = lines
    if not panels:
        raise DataError(f"{results}: no row of the low-data studies; run qsft reproduce low-data first")
    return panels


def of_two(runs: Sequence[ResultRow]) -> Estimate | None:
    """Of two seeds the mean and an interval over their episodes, as one seed has; their spread, one degree of freedom,
    would fill the chart. ``None`` for another number of seeds."""
    if len(runs) != 2:
        return None
    first, second = (run.return_estimate for run in runs)
    mean, half = (first.mean + second.mean) / 2, math.hypot(first.half_width, second.half_width) / 2
    return Estimate(mean, mean - half, mean + half, first.n + second.n)


if __name__ == "__main__":
    chart_command(__doc__, HERE, read, AXES)
