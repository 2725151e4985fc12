"""The tables of an experiment's page, in Markdown: all environments side by side, then each with its intervals.

python experiments/tables.py experiments/games/results.json
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from qsft.evaluation import GAME_SCALES, ResultRow, ResultsFile, markdown_table, summarise


def side_by_side(rows: Sequence[ResultRow]) -> str:
    """Mean returns of the trained methods, a column an environment; bold: no worse than the best, up to the intervals.

    Environments stand in the order of the rows. Runs of one of them alone are in that one's table.
    """
    envs = by_environment(rows)
    cells: dict[str, dict[str, str]] = {}
    for env, of_env in envs.items():
        for one in summarise(of_env):
            if one.competes:
                value = f"{one.returns.mean:.2f}"
                cells.setdefault(str(one.config), {})[env] = f"**{value}**" if one.ties_best else value
    lines = ["| mean return | " + " | ".join(envs) + " |", "|---|" + "---:|" * len(envs)]
    for config, values in cells.items():
        if len(values) > 1:
            lines.append(f"| {config} | " + " | ".join(values.get(env, "") for env in envs) + " |")
    return "\n".join(lines)


def by_environment(rows: Sequence[ResultRow]) -> dict[str, list[ResultRow]]:
    """The rows of each environment, in their order."""
    found: dict[str, list[ResultRow]] = {}
    for row in rows:
        found.setdefault(row.env, []).append(row)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="a results file of qsft reproduce")
    rows = ResultsFile(parser.parse_args().results).rows()
    print(side_by_side(rows))
    for env, of_env in by_environment(rows).items():
        print(f"\n### {env}\n\n{markdown_table(of_env, GAME_SCALES.get(env))}")


if __name__ == "__main__":
    main()
