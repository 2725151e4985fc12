"""Return against games to learn from, a panel a model size, a line a method with its 95% interval: an SVG file.

python experiments/low-data/plot.py [--results experiments/low-data/results.json] [--out FILE]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from qsft.data.text_files import write_text
from qsft.errors import DataError
from qsft.evaluation import GAME_SCALES, Estimate, ResultsFile, summarise
from qsft.evaluation.panels import Axes, panel_chart
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
            lines.setdefault(config.partition(",")[0], {})[games[config]] = summary.returns
        panels[title] = {method: dict(sorted(points.items())) for method, points in lines.items()}
    if not any(panels.values()):
        raise DataError(f"{results}: no row of the low-data studies; run qsft reproduce low-data first")
    return panels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=HERE / "results.json")
    parser.add_argument("--out", type=Path, default=HERE / "curves.svg")
    arguments = parser.parse_args()
    write_text(arguments.out, panel_chart(read(arguments.results), AXES) + "\n")
    print(arguments.out)


if __name__ == "__main__":
    main()
