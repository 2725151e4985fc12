"""The tables of an experiment's page, in Markdown: all environments side by side, then each with its intervals.

python experiments/tables.py experiments/games/results.json
python experiments/tables.py experiments/games/results.json --against "SFT, as many steps"

The second has between them a table of how far each method is ahead of one, seed by seed.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from qsft.evaluation import (
    GAME_SCALES,
    Estimate,
    ResultRow,
    ResultsFile,
    difference,
    format_interval,
    markdown_table,
    seeds_interval,
    summarise,
)


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
    return _table("mean return", envs, {config: values for config, values in cells.items() if len(values) > 1})


def ahead_of(base: str, rows: Sequence[ResultRow]) -> str:
    """By how much the trained methods return more than the run ``base``; bold: the interval is above 0.

    Methods of a seed share its data, its stage 1 and its test episodes, so what a seed is worth cancels in a difference.
    The interval is one over seeds (:func:`qsft.evaluation.seeds_interval`) of the differences, their episodes taken as
    independent. What shares fewer than two seeds with ``base`` is left out, as are runs of one environment of several.
    """
    cells: dict[str, dict[str, str]] = {}
    envs, grouped = [], by_environment(rows)
    for env, of_env in grouped.items():
        ahead = _ahead(base, of_env)
        if ahead:
            envs.append(env)
        for config, estimate in ahead.items():
            value = format_interval(estimate).replace("-0.00", "0.00")
            cells.setdefault(config, {})[env] = f"**{value}**" if estimate.low > 0 else value
    places = Counter(config for config, _ in {(str(row.config), row.env) for row in rows})
    shown = {config: values for config, values in cells.items() if len(grouped) == 1 or places[config] > 1}
    return _table(f"ahead of {base} by", envs, shown)


def _table(title: str, envs: Iterable[str], cells: Mapping[str, Mapping[str, str]]) -> str:
    """A column an environment, a row a config."""
    header = [title, *envs]
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    for config, values in cells.items():
        lines.append("| " + " | ".join([config, *(values.get(env, "") for env in header[1:])]) + " |")
    return "\n".join(lines)


def _ahead(base: str, rows: Sequence[ResultRow]) -> dict[str, Estimate]:
    """Each trained config of one environment with its difference to ``base`` over the seeds that both have."""
    runs = {(str(row.config), row.seed): row for row in rows}
    trained = [str(one.config) for one in summarise(rows) if one.competes and str(one.config) != base]
    found = {}
    for config in trained:
        seeds = sorted(seed for name, seed in runs if name == config and (base, seed) in runs)
        if len(seeds) > 1:
            each = [difference(runs[config, s].return_estimate, runs[base, s].return_estimate) for s in seeds]
            shared = len({runs[config, s].episode_seed for s in seeds}) < len(seeds)
            found[config] = seeds_interval(each, shared_episodes=shared)
    return found


def by_environment(rows: Sequence[ResultRow]) -> dict[str, list[ResultRow]]:
    """The rows of each environment, in their order."""
    found: dict[str, list[ResultRow]] = {}
    for row in rows:
        found.setdefault(row.env, []).append(row)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="a results file of qsft reproduce")
    parser.add_argument(
        "--against", metavar="RUN", help="name of the run that the others are compared with, seed by seed"
    )
    arguments = parser.parse_args()
    rows = ResultsFile(arguments.results).rows()
    print(side_by_side(rows))
    if arguments.against is not None:
        if arguments.against not in {row.config for row in rows}:
            parser.error(f"--against: {arguments.results} has no run {arguments.against!r}")
        print(f"\n{ahead_of(arguments.against, rows)}")
    for env, of_env in by_environment(rows).items():
        print(f"\n### {env}\n\n{markdown_table(of_env, GAME_SCALES.get(env))}")


if __name__ == "__main__":
    main()
