"""Results as a table: in the terminal and in Markdown."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from qsft.errors import ConfigError
from qsft.evaluation.results import ResultRow
from qsft.evaluation.statistics import (
    Estimate,
    Scale,
    normalised_score,
    seeds_interval,
    seeds_success_interval,
    separated,
)
from qsft.policies.prompting import KINDS as PROMPTED

_MARKS = {"best": "*", "overlaps": "~", "": ""}
#: columns that names have before they wrap, where rows are of one line
_NAME_WIDTH = 20
#: columns of a file or pipe
_IN_FILES = 160


@dataclass(frozen=True, slots=True)
class MethodSummary:
    """All seeds of one method (with one config) in one environment.

    Attributes:
        label: the method, with its config where the same method appears with several.
        seeds: the seeds, ascending.
        seed_means: mean return of each seed.
        episodes: scored, over all seeds.
        returns, success: mean over seeds, with the interval of :func:`seeds_interval` and its like.
        score: normalised score of the mean return, where a scale was given.
        competes: it is compared. Scripted policies are not, in a table that also has methods, which learn or are prompted:
            they are its floor and its ceiling.
        best: it has the highest mean return of those that compete.
        ties_best: it competes, and its interval overlaps that of the best (the best itself included).
    """

    label: str
    method: str
    config: str | dict[str, Any]
    seeds: tuple[int, ...]
    seed_means: tuple[float, ...]
    episodes: int
    returns: Estimate
    success: Estimate
    score: float | None
    competes: bool
    best: bool
    ties_best: bool

    @property
    def mark(self) -> str:
        return "best" if self.best else "overlaps" if self.ties_best else ""


def summarise(rows: Sequence[ResultRow], scale: Scale | None = None) -> list[MethodSummary]:
    """One summary per method and config, in the order in which they first appear.

    Raises:
        ConfigError: no rows, or rows of more than one environment (their numbers must not share a table).
    """
    envs = sorted({row.env for row in rows})
    if len(envs) != 1:
        raise ConfigError(f"a table holds one environment, these rows hold {envs or 'none'}: choose the rows of one")
    groups: dict[tuple[str, str], list[ResultRow]] = {}
    for row in rows:
        groups.setdefault((row.method, row.key[2]), []).append(row)
    methods = [method for method, _ in groups]
    found = []
    for (method, config), group in groups.items():
        group.sort(key=lambda row: row.seed)
        shared = len({row.episode_seed for row in group}) < len(group)
        returns = seeds_interval([row.return_estimate for row in group], shared_episodes=shared)
        success = seeds_success_interval([row.success_estimate for row in group], shared_episodes=shared)
        label = method if methods.count(method) == 1 else f"{method} ({_short(config)})"
        found.append((label, group, returns, success))
    rivals = [_is_method(group[0]) for _, group, _, _ in found]
    competes = rivals if any(rivals) else [True] * len(found)
    top = max((i for i, one in enumerate(competes) if one), key=lambda i: found[i][2].mean)
    return [
        MethodSummary(
            label=label,
            method=group[0].method,
            config=group[0].config,
            seeds=tuple(row.seed for row in group),
            seed_means=tuple(row.return_mean for row in group),
            episodes=sum(row.episodes for row in group),
            returns=returns,
            success=success,
            score=None if scale is None else normalised_score(returns.mean, scale),
            competes=competes[i],
            best=i == top,
            ties_best=competes[i] and not separated(returns, found[top][2]),
        )
        for i, (label, group, returns, success) in enumerate(found)
    ]


class ResultTable:
    """What :func:`rich_table` returns: nothing of it is cut, however narrow the terminal.

    Where rows of one line do not fit, intervals stand below their means, and where these do not, everything wraps.
    """

    def __init__(self, rows: Sequence[ResultRow], scale: Scale | None, title: str | None) -> None:
        self._summaries, self._scale = summarise(rows, scale), scale
        self._title = title or rows[0].env
        self._legend = _legend(self._summaries) + _retrained(rows)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for below in (False, True):
            table = self._table(below)
            if Measurement.get(console, options.update(max_width=_IN_FILES), table).minimum <= options.max_width:
                yield table
                return
        yield self._table(below=True, wrap=True)

    def _table(self, below: bool, wrap: bool = False) -> Table:
        """With the intervals beside or below their means; where ``wrap``, numbers wrap too, not names alone."""
        table = Table(title=self._title, box=box.SIMPLE_HEAD, caption=self._legend, caption_justify="left")
        table.pad_edge, table.collapse_padding = False, True
        rows = [_header(self._scale), *map(_cells, self._summaries)]
        if below:
            rows = [[name, *(cell.replace(" [", "\n[") for cell in cells)] for name, *cells in rows]
        table.add_column("")
        names, *numbers = zip(*rows, strict=True)
        table.add_column(names[0], overflow="fold", min_width=None if below else min(max(map(len, names)), _NAME_WIDTH))
        for column in numbers:
            width = None if wrap else max(len(line) for cell in column for line in cell.split("\n"))
            table.add_column(column[0], justify="right", overflow="fold", no_wrap=not wrap, min_width=width)
        for summary, row in zip(self._summaries, rows[1:], strict=True):
            style = "bold" if summary.best else "" if summary.competes else "italic"
            table.add_row(_MARKS[summary.mark] if summary.competes else "-", *map(Text, row), style=style)
        return table


def rich_table(rows: Sequence[ResultRow], scale: Scale | None = None, title: str | None = None) -> ResultTable:
    """The table for a terminal, to be printed by ``rich``: ``*`` marks the best, ``~`` those whose interval overlaps with
    it, ``-`` what is scripted beside methods that are not."""
    return ResultTable(rows, scale, title)


def print_table(rows: Sequence[ResultRow], scale: Scale | None = None, title: str | None = None) -> None:
    """Prints :func:`rich_table` for the terminal's width; into a file or pipe, which has none, as wide as it needs."""
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=_IN_FILES)
    console.print(rich_table(rows, scale, title))


def markdown_table(rows: Sequence[ResultRow], scale: Scale | None = None) -> str:
    """The same table in Markdown: the best in bold, ``~`` before those whose interval overlaps with it."""
    summaries = summarise(rows, scale)
    header = _header(scale)
    lines = ["| " + " | ".join(header) + " |", "|---" + "|---:" * (len(header) - 1) + "|"]
    for summary in summaries:
        cells = [cell.replace("|", "\\|").replace("\n", " ") for cell in _cells(summary)]
        if summary.best:
            cells = [f"**{cell}**" if cell else "" for cell in cells]
        elif summary.ties_best:
            cells[0] = f"~ {cells[0]}"
        elif not summary.competes:
            cells[0] = f"*{cells[0]}*"
        lines.append("| " + " | ".join(cells) + " |")
    legend = _legend(summaries).replace("* best", "Bold: best").replace(" - scripted", " In italics: scripted")
    return "\n".join([*lines, "", legend + _retrained(rows), ""])


def format_interval(estimate: Estimate, digits: int = 2, unit: float = 1.0) -> str:
    """``mean [low, high]`` with a fixed number of digits; ``unit`` 100 makes shares percent."""
    mean = f"{unit * estimate.mean:.{digits}f}"
    if not (math.isfinite(estimate.low) and math.isfinite(estimate.high)):
        return f"{mean} [?]"
    return f"{mean} [{unit * estimate.low:.{digits}f}, {unit * estimate.high:.{digits}f}]"


def _header(scale: Scale | None) -> list[str]:
    return ["method", "return [95% CI]", "success % [95% CI]", *(["score"] if scale else []), "seeds", "episodes"]


def _cells(summary: MethodSummary) -> list[str]:
    score = [] if summary.score is None else [f"{summary.score:.1f}"]
    returns, success = format_interval(summary.returns), format_interval(summary.success, 1, 100)
    return [summary.label, returns, success, *score, str(len(summary.seeds)), f"{summary.episodes:,}"]


def _legend(summaries: Sequence[MethodSummary]) -> str:
    text = "* best mean return; ~ its interval overlaps with that of the best."
    if any(len(s.seeds) == 1 for s in summaries):
        text += " Methods with one seed: the interval covers its episodes, not another training run."
    if not all(summary.competes for summary in summaries):
        text += " - scripted, not compared."
    return text


def _retrained(rows: Sequence[ResultRow]) -> str:
    """Says in which seeds the model that methods go on from was trained more than once, between their rows."""
    found: dict[tuple[str, int], set[str]] = {}
    for row in rows:
        if isinstance(start := row.extra.get("stage_one"), dict) and {"run", "weights"} <= start.keys():
            found.setdefault((start["run"], row.seed), set()).add(start["weights"])
    return "".join(
        f" Rows of seed {seed} go on from {len(weights)} trainings of {run!r}, and differ by these too."
        for (run, seed), weights in found.items()
        if len(weights) > 1
    )


def _is_method(row: ResultRow) -> bool:
    """Whether the policy learnt, and so had its decoding chosen, or is a prompted model: else it is scripted."""
    return "decoding" in row.extra or row.method in PROMPTED


def _short(config: str) -> str:
    value = json.loads(config)
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in sorted(value.items()))
    return str(value)
