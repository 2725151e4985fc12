"""Success against updates after bc, a panel an amount of data, a line a method with its 95% interval: an SVG file.

python experiments/robots/curves/plot.py [--results experiments/robots/curves/results.json] [--out FILE]
"""

from __future__ import annotations

import re
from pathlib import Path

from qsft.errors import DataError
from qsft.evaluation import Estimate, ResultsFile, summarise
from qsft.evaluation.panels import Axes, chart_command

HERE = Path(__file__).parent
#: The data's own success, of episodes that play one stage of the two, is none.
AXES = Axes("success", "updates after bc", ("data", 0.0))


def read(results: Path) -> dict[str, dict[str, dict[int, Estimate]]]:
    """Updates -> success, for each method of each panel, of the rows that there are.

    Raises:
        DataError: there is no row of the study.
    """
    found = [row for row in ResultsFile(results).rows() if re.fullmatch(r".+, \d+ of \d+", row.config)]
    if not found:
        raise DataError(f"{results}: no row of the curves; run qsft reproduce experiments/robots/curves first")
    panels: dict[str, dict[str, dict[int, Estimate]]] = {}
    for summary in summarise(found):
        method, _, amounts = str(summary.config).partition(", ")
        updates, _, episodes = amounts.partition(" of ")
        if updates != "0":
            lines = panels.setdefault(f"{int(episodes):,} episodes", {})
            lines.setdefault(method, {})[int(updates)] = summary.success
    return panels


if __name__ == "__main__":
    chart_command(__doc__, HERE, read, AXES)
