"""The parts of the report that come as tables and charts."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from qsft.evaluation.calibration import Calibration, calibration_bias, calibration_bins
from qsft.evaluation.charts import DotRow, axis, calibration_plot, dot_plot, interval, line_chart, small_dot
from qsft.evaluation.grid import GridRow
from qsft.evaluation.markup import Markup, join, number, tag
from qsft.evaluation.results import ResultRow
from qsft.evaluation.statistics import Estimate, Scale
from qsft.evaluation.tables import MethodSummary, summarise


@dataclass(frozen=True, slots=True)
class Reference:
    """A number to compare with that was not measured here.

    Attributes:
        label: whose number.
        value: mean return.
        protocol: how it was obtained, and how that differs from this report.
        kind: ``"published"`` (a row of its own, clearly apart) or ``"line"`` (a vertical line, as the data's mean).
        env: the environment it belongs to.
    """

    label: str
    value: float
    protocol: str
    kind: Literal["published", "line"] = "published"
    env: str = ""


def results_html(
    rows: Sequence[ResultRow],
    references: Sequence[Reference],
    scales: Mapping[str, Scale],
    notes: Sequence[str],
) -> Markup | None:
    """Table and plot of each environment, then the notes and the list of all runs."""
    envs = list(dict.fromkeys(row.env for row in rows))
    parts: list[Markup] = []
    for env in envs:
        if len(envs) > 1:
            parts.append(tag("h3", env))
        parts.append(_environment([r for r in rows if r.env == env], references, scales.get(env)))
    if notes:
        parts.append(tag("div", (tag("p", note) for note in notes), class_="notes"))
    if rows:
        parts.append(_runs(rows))
    return join(parts) if parts else None


def _environment(rows: Sequence[ResultRow], references: Sequence[Reference], scale: Scale | None) -> Markup:
    summaries = sorted(summarise(rows, scale), key=lambda s: -s.returns.mean)
    here = [r for r in references if r.env in ("", rows[0].env)]
    published = sorted((r for r in here if r.kind == "published"), key=lambda r: -r.value)
    dots = [
        DotRow(
            label=s.label,
            note=_MARKS[s.mark],
            estimate=s.returns,
            kind="best" if s.best else "measured",
            singles=tuple(s.seed_means) if len(s.seeds) > 1 else (),
        )
        for s in summaries
    ]
    plot = dot_plot(
        dots,
        [DotRow(r.label, r.protocol, Estimate(r.value, r.value, r.value, 1), "published") for r in published],
        {r.label: r.value for r in here if r.kind == "line"},
        "mean return with 95% confidence interval"
        + ("; small rings: single seeds" if any(d.singles for d in dots) else ""),
    )
    lines = [tag("li", f"{r.label} {number(r.value)}: {r.protocol}") for r in here if r.kind == "line" and r.protocol]
    return join(
        [
            _results_table(summaries),
            tag("div", plot, class_="card"),
            tag("ul", lines, class_="hint plain") if lines else None,
        ]
    )


_MARKS = {"best": "best", "overlaps": "interval overlaps with the best", "": ""}
_PILLS = {"best": "best", "overlaps": "overlaps best", "": ""}


def _results_table(summaries: Sequence[MethodSummary]) -> Markup:
    scored = summaries[0].score is not None
    head = ["Method", "Return", "95% CI", "Success", "95% CI", *(["Score"] if scored else []), "Seeds", "Episodes"]
    body = []
    for s in summaries:
        cells = [
            number(s.returns.mean),
            interval(s.returns),
            number(100 * s.success.mean, 1) + "%",
            interval(s.success, 1, 100),
            *([number(s.score, 1)] if scored else []),
            str(len(s.seeds)),
            f"{s.episodes:,}",
        ]
        name = [tag("span", s.label, class_="label"), tag("span", _PILLS[s.mark], class_=f"mark {s.mark}")]
        body.append([name if s.mark else s.label, *cells])
    caption = (
        "Means over seeds; intervals cover training seeds and episodes together. "
        if any(len(s.seeds) > 1 for s in summaries)
        else ""
    )
    if any(len(s.seeds) == 1 for s in summaries):
        caption += "With one seed the interval covers episodes only, not another training run. "
    if scored:
        caption += "Score: 0 is the minimum, 50 the mean of the data, 100 the best known."
    return table(head, body, caption=caption, strong=[i for i, s in enumerate(summaries) if s.best])


def _runs(rows: Sequence[ResultRow]) -> Markup:
    several = len({row.env for row in rows}) > 1
    head = ["Method", "Seed", "Return", "95% CI", "Episodes", "Seconds", "Date", "Config and command"]
    body = [
        [
            f"{row.env}: {row.method}" if several else row.method,
            str(row.seed),
            number(row.return_mean),
            interval(row.return_estimate),
            f"{row.episodes:,}",
            f"{row.seconds:,.0f}",
            row.date[:10],
            [_code(_plain(row.config)), _code(row.command)],
        ]
        for row in rows
    ]
    return details(f"All {len(rows)} runs, with the commands that make them", table(head, body, text_columns=(7,)))


def summary_html(summary: Mapping[str, Any]) -> Markup | None:
    """Plain values as one list, then a block for each nested mapping."""
    if not summary:
        return None
    plain = {key: value for key, value in summary.items() if not isinstance(value, Mapping)}
    blocks = [tag("div", _definitions(plain), class_="card")] if plain else []
    for key, value in summary.items():
        if isinstance(value, Mapping):
            blocks.append(tag("div", tag("h3", key), _definitions(value), class_="card"))
    return tag("div", blocks, class_="blocks")


def _definitions(values: Mapping[str, Any]) -> Markup:
    return tag("dl", (tag("div", tag("dt", key), tag("dd", _plain(value))) for key, value in values.items()))


def grids_html(grids: Mapping[str, Sequence[GridRow]]) -> Markup | None:
    """One collapsible table a grid, with a dot and an interval for each setting on a common axis."""
    if not grids:
        return None
    intro = (
        "Each method plays at the best setting of its grid. Settings compete on selection episodes; the winner is then "
        "judged once on other episodes, and only that number enters the results."
    )
    return join([tag("p", intro), [_grid(title, rows) for title, rows in grids.items()]])


def _grid(title: str, rows: Sequence[GridRow]) -> Markup:
    names = list(dict.fromkeys(name for row in rows for name in row.setting))
    estimates = [
        _estimate(row.evaluation["return_mean"], row.evaluation["return_ci95"], row.evaluation["episodes"])
        for row in rows
    ]
    scale = axis(end for e in estimates for end in (e.mean, e.low, e.high))
    body: list[list[Any]] = []
    for row, estimate in zip(rows, estimates, strict=True):
        first, *others = [_plain(row.setting[name]) if name in row.setting else "–" for name in names] or ["default"]
        if row.chosen:
            first = join([tag("span", first, class_="label"), tag("span", "chosen", class_="mark best")])
        success = number(100 * row.evaluation["success_rate"], 1) + "%"
        picture = small_dot(estimate, scale)
        body.append([first, *others, number(estimate.mean), interval(estimate), picture, success])
    head = [*(names or ["Setting"]), "Return", "95% CI", "", "Success"]
    marked = [i for i, row in enumerate(rows) if row.chosen]
    best = "; ".join(f"{name} {_plain(value)}" for i in marked for name, value in rows[i].setting.items())
    content = table(head, body, strong=marked, text_columns=(len(head) - 2,))
    return details(f"{title}: {len(rows)} settings" + (f", chosen {best}" if best else ""), content)


def curves_html(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> Markup | None:
    """All charts, side by side where there is room."""
    if not curves:
        return None
    return tag("div", (line_chart(points, title) for title, points in curves.items()), class_="charts")


def calibration_html(calibrations: Sequence[Calibration]) -> Markup | None:
    """One plot and one table of bins for each."""
    if not calibrations:
        return None
    intro = (
        "Each dot is a bin of states with similar predictions: mean prediction against the mean return that followed, "
        "with its 95% interval. On the dashed diagonal the value means what it says; below it, it hopes for too much."
    )
    return join([tag("p", intro), tag("div", (_calibration(c) for c in calibrations), class_="charts")])


def _calibration(calibration: Calibration) -> Markup:
    bins = calibration_bins(calibration)
    bias = calibration_bias(calibration)
    body = [
        [
            f"{number(b.low)} to {number(b.high)}",
            number(b.predicted),
            number(b.realised.mean),
            interval(b.realised),
            f"{b.n:,}",
        ]
        for b in bins
    ]
    head = ["Range", "Predicted", "Realised", "95% CI", "States"]
    verdict = f"{len(calibration.predicted):,} states. Predicted minus realised: {number(bias.mean)} {interval(bias)}."
    return tag(
        "figure",
        tag("figcaption", calibration.label),
        calibration_plot(bins, calibration.label),
        tag("p", verdict, class_="hint"),
        details("The bins as a table", table(head, body)),
        class_="chart",
    )


# --- shared parts ------------------------------------------------------------------------------------------------


def table(
    head: Sequence[str],
    body: Sequence[Sequence[Any]],
    *,
    caption: str = "",
    strong: Sequence[int] = (),
    text_columns: Sequence[int] = (),
) -> Markup:
    """A table that scrolls sideways when the screen is narrow. The first column heads its row; others hold numbers."""

    def style(column: int) -> str | None:
        return None if column == 0 or column in text_columns else "n"

    rows = [
        tag(
            "tr",
            tag("th", cells[0], scope="row"),
            (tag("td", cell, class_=style(i)) for i, cell in enumerate(cells[1:], 1)),
            class_="strong" if number_ in strong else None,
        )
        for number_, cells in enumerate(body)
    ]
    header = tag("thead", tag("tr", (tag("th", name, scope="col", class_=style(i)) for i, name in enumerate(head))))
    inner = tag("table", header, tag("tbody", rows))
    label = f"Table: {', '.join(head[:3])}"
    region = tag("div", inner, class_="scroll", tabindex=0, role="region", aria_label=label)
    return join([region, tag("p", caption, class_="hint") if caption else None])


def details(title: str, *content: Any) -> Markup:
    """Content behind a line that opens it."""
    return tag("details", tag("summary", title), content)


def _estimate(mean: float, ends: Iterable[float | None], n: int) -> Estimate:
    low, high = ends
    return Estimate(mean, -math.inf if low is None else low, math.inf if high is None else high, n)


def _code(text: str) -> Markup:
    """Code whose lines break between words only: ``--seed`` is not torn after its dashes."""
    return tag("code", join((tag("span", word) for word in text.split(" ")), " "))


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
