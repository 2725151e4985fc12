"""Charts as HTML with inline SVG: no plotting library, sharp at any width, and readable without seeing them.

Positions inside a chart are percentages, so that it stretches to the width it gets while its text, lines and marks keep
their size. Only polylines live in a stretched coordinate system (0..1000 both ways).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qsft.errors import DataError
from qsft.evaluation.calibration import CalibrationBin
from qsft.evaluation.markup import Markup, join, number, tag
from qsft.evaluation.statistics import Estimate

#: Lines of a chart are told apart by colour and by dashes; the style sheet knows this many of each.
COLOURS, DASHES = 6, 4
#: A line with more points than this is drawn through the means of as many runs of neighbours.
MAX_POINTS = 300


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear axis: its ends and its ticks."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def percent(self, value: float) -> float:
        """Position of ``value``, 0 at the low end and 100 at the high one."""
        return round(100 * (value - self.low) / (self.high - self.low), 3)

    def label(self, tick: float) -> str:
        """The tick with as many digits as tell it from its neighbours."""
        step = self.ticks[1] - self.ticks[0] if len(self.ticks) > 1 else 1.0
        digits = next((d for d in range(12) if abs(step * 10**d - round(step * 10**d)) < 1e-6 * step * 10**d), 12)
        return number(tick, digits)


def axis(values: Iterable[float], ticks: int = 6, padding: float = 0.04) -> Axis:
    """An axis around all finite values, with round ticks."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    if high - low < 1e-12 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    low, high = low - padding * (high - low), high + padding * (high - low)
    rough = (high - low) / ticks
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= 0.75 * rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return Axis(low, high, tuple(k * step for k in range(first, last + 1)))


# --- dots and intervals ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DotRow:
    """One line of a dot plot.

    Attributes:
        label, note: what it is (the note is smaller).
        estimate: where the dot and its interval lie.
        kind: ``"measured"`` (filled dot), ``"best"`` (the same, strong), ``"published"`` (hollow diamond, no interval).
        singles: further values shown as small rings, for example the seeds.
    """

    label: str
    note: str
    estimate: Estimate
    kind: str = "measured"
    singles: tuple[float, ...] = ()


def dot_plot(rows: Sequence[DotRow], published: Sequence[DotRow], lines: Mapping[str, float], unit: str) -> Markup:
    """Dots with 95% intervals over one horizontal axis.

    Args:
        rows: what was measured, from top to bottom.
        published: rows of other people's numbers, below a rule that sets them apart.
        lines: labelled verticals (reference values).
        unit: title of the axis.
    """
    estimates = [(row.estimate, row.singles) for row in (*rows, *published)]
    ends = [end for e, singles in estimates for end in (e.mean, e.low, e.high, *singles)]
    scale = axis([*ends, *lines.values()])
    backdrop = [
        *(_vertical(scale.percent(tick), "grid") for tick in scale.ticks),
        *(_vertical(scale.percent(value), "reference") for value in lines.values()),
    ]
    labels = []
    for name, value in lines.items():
        x = scale.percent(value)
        # Shifted by its own width as far as it stands to the right: never outside the chart.
        text = tag("span", f"{name} {number(value)}", style=f"left:{x}%;transform:translateX(-{x}%)")
        labels.append(tag("div", text, class_="linelabel"))
    ticks = tag("div", _tick_labels(scale, "left"), class_="track ticks", aria_hidden="true")
    return tag(
        "div",
        tag("div", tag("div", labels, class_="track labels"), class_="dotrow") if lines else None,
        (_dot_row(row, scale, backdrop) for row in rows),
        tag("p", "Published numbers, under their own protocols", class_="divider") if published else None,
        (_dot_row(row, scale, backdrop) for row in published),
        tag("div", ticks, class_="dotrow axis"),
        tag("p", unit, class_="unit"),
        class_="dotplot",
    )


def _dot_row(row: DotRow, scale: Axis, backdrop: list[Markup]) -> Markup:
    x, middle = scale.percent(row.estimate.mean), "50%"
    value = number(row.estimate.mean)
    marks: list[Markup] = []
    bounded = math.isfinite(row.estimate.low) and math.isfinite(row.estimate.high)
    if row.kind == "published":
        marks = [tag("svg", tag("path", d="M0 -6 L6 0 L0 6 L-6 0 Z"), x=f"{x}%", y=middle, overflow="visible")]
    else:
        if bounded:
            low, high = scale.percent(row.estimate.low), scale.percent(row.estimate.high)
            value += f" {interval(row.estimate)}"
            marks.append(tag("line", x1=f"{low}%", x2=f"{high}%", y1=middle, y2=middle, class_="interval"))
            ends = ((end, "38%", "62%") for end in (low, high))
            marks += [tag("line", x1=f"{e}%", x2=f"{e}%", y1=a, y2=b, class_="interval") for e, a, b in ends]
        marks += [tag("circle", cx=f"{scale.percent(s)}%", cy="82%", r=2.5, class_="single") for s in row.singles]
        marks.append(tag("circle", cx=f"{x}%", cy=middle, r=6, class_="dot"))
    picture = tag("div", tag("svg", backdrop, marks), class_="track", aria_hidden="true")
    name = tag("div", tag("span", row.label, class_="label"), tag("span", row.note, class_="note"), class_="dotname")
    return tag("div", name, picture, tag("div", value, class_="dotvalue"), class_=f"dotrow {row.kind}")


def small_dot(estimate: Estimate, scale: Axis) -> Markup:
    """Dot and interval to fit a table cell; the numbers stand beside it in the table."""
    marks = [tag("circle", cx=f"{scale.percent(estimate.mean)}%", cy="50%", r=4, class_="dot")]
    if math.isfinite(estimate.low) and math.isfinite(estimate.high):
        low, high = (f"{scale.percent(end)}%" for end in (estimate.low, estimate.high))
        marks.insert(0, tag("line", x1=low, x2=high, y1="50%", y2="50%", class_="interval"))
    return tag("svg", marks, class_="smalldot", aria_hidden="true")


# --- lines -------------------------------------------------------------------------------------------------------


def line_chart(points: Sequence[Mapping[str, Any]], title: str) -> Markup:
    """Learning curves: one line per ``name`` through its ``(step, value)``; values that are not finite leave a gap.

    The legend shows the last value of each line, and while the pointer (or an arrow key) is on the chart the values
    there.

    Raises:
        DataError: no points, or a point without ``step``, ``name`` and ``value``.
    """
    lines = {name: _thin(line) for name, line in _lines(points, title).items()}
    if not lines:
        raise DataError(f"chart '{title}': no points: leave the chart out")
    xs = axis((x for line in lines.values() for x, _ in line), padding=0.0, ticks=5)
    ys = axis((y for line in lines.values() for _, y in line), ticks=5)
    drawn, legend, data = [], [], []
    for i, (name, line) in enumerate(lines.items()):
        style = f"series c{i % COLOURS} d{i % DASHES}"
        drawn.append(tag("path", d=_path(line, xs, ys), class_=style, vector_effect="non-scaling-stroke"))
        sample = tag("svg", tag("line", x1=1, x2=25, y1=5, y2=5, class_=style), class_="sample", aria_hidden="true")
        last = next((y for _, y in reversed(line) if math.isfinite(y)), math.nan)
        legend.append(tag("li", sample, tag("span", name), tag("output", _value(last))))
        data.append([[x, _value(y), xs.percent(x), ys.percent(y) if math.isfinite(y) else None] for x, y in line])
    svg = tag(
        "svg",
        (_vertical(xs.percent(tick), "grid") for tick in xs.ticks),
        (_horizontal(ys.percent(tick), "grid") for tick in ys.ticks),
        tag("svg", drawn, viewBox="0 0 1000 1000", preserveAspectRatio="none", width="100%", height="100%"),
        tag("line", x1="0%", x2="0%", y1="0%", y2="100%", class_="cursor"),
        role="img",
        aria_label=f"{title}. " + " ".join(_describe(name, line) for name, line in lines.items()),
    )
    return tag(
        "figure",
        tag("figcaption", title),
        _frame(svg, xs, ys, "step", "", data=json.dumps(data)),
        tag("p", tag("output", "last value", class_="where"), class_="readout"),
        tag("ul", legend, class_="legend"),
        class_="chart lines",
    )


def _lines(points: Sequence[Mapping[str, Any]], title: str) -> dict[str, list[tuple[float, float]]]:
    lines: dict[str, list[tuple[float, float]]] = {}
    for row, point in enumerate(points, 1):
        try:
            name, step, value = str(point["name"]), float(point["step"]), point["value"]
            lines.setdefault(name, []).append((step, math.nan if value is None else float(value)))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"chart '{title}', point {row}: {error!r}: give step, name and value") from error
    return {name: sorted(line, key=lambda point: point[0]) for name, line in lines.items()}


def _thin(line: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Means of runs of neighbours, at most MAX_POINTS of them."""
    if len(line) <= MAX_POINTS:
        return line
    size = math.ceil(len(line) / MAX_POINTS)
    runs = [line[i : i + size] for i in range(0, len(line), size)]
    return [(run[-1][0], sum(y for _, y in run) / len(run)) for run in runs]


def _path(line: list[tuple[float, float]], xs: Axis, ys: Axis) -> str:
    commands, pen = [], "M"
    for x, y in line:
        if not math.isfinite(y):
            pen = "M"
            continue
        commands.append(f"{pen}{10 * xs.percent(x):.1f} {1000 - 10 * ys.percent(y):.1f}")
        pen = "L"
    # A single point has no length to draw; a hair of it shows as a round dot.
    return " ".join(commands) + (" h.1" if len(commands) == 1 else "")


def _describe(name: str, line: list[tuple[float, float]]) -> str:
    finite = [(x, y) for x, y in line if math.isfinite(y)]
    if not finite:
        return f"{name}: no finite value."
    (x0, y0), (x1, y1) = finite[0], finite[-1]
    return f"{name}: {_value(y0)} at step {number(x0, 0)}, {_value(y1)} at step {number(x1, 0)}."


def _value(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    if 0 < abs(value) < 1e-4:
        return f"{value:.1e}".replace("-", "\u2212")
    digits = 4 if value == 0 else min(6, max(0, 3 - math.floor(math.log10(abs(value)))))
    return number(value, digits)


# --- calibration -------------------------------------------------------------------------------------------------


def calibration_plot(bins: Sequence[CalibrationBin], label: str) -> Markup:
    """Realised mean with interval against mean prediction, one dot a bin, over the diagonal of a perfect value."""
    ends = [v for b in bins for v in (b.predicted, b.realised.mean, b.realised.low, b.realised.high)]
    both = axis(ends, ticks=5)
    marks = [tag("line", x1="0%", y1="100%", x2="100%", y2="0%", class_="diagonal")]
    for b in bins:
        x = f"{both.percent(b.predicted)}%"
        hint = tag(
            "title",
            f"predicted {number(b.predicted)}, realised {number(b.realised.mean)} {interval(b.realised)}, ",
            f"{b.n:,} states",
        )
        if math.isfinite(b.realised.low):
            low, high = (f"{100 - both.percent(end)}%" for end in (b.realised.low, b.realised.high))
            marks.append(tag("line", x1=x, x2=x, y1=low, y2=high, class_="interval"))
        marks.append(tag("circle", hint, cx=x, cy=f"{100 - both.percent(b.realised.mean)}%", r=5, class_="dot"))
    svg = tag(
        "svg",
        (_vertical(both.percent(tick), "grid") for tick in both.ticks),
        (_horizontal(both.percent(tick), "grid") for tick in both.ticks),
        marks,
        role="img",
        aria_label=f"{label}: realised return against predicted value in {len(bins)} bins; the table has the numbers.",
    )
    return _frame(svg, both, both, "predicted value", "realised return-to-go", square=True)


# --- shared parts ------------------------------------------------------------------------------------------------


def interval(estimate: Estimate, digits: int = 2, unit: float = 1.0) -> str:
    """``[low, high]``, or a question mark where the data cannot bound it."""
    if not (math.isfinite(estimate.low) and math.isfinite(estimate.high)):
        return "[?]"
    return f"[{number(unit * estimate.low, digits)}, {number(unit * estimate.high, digits)}]"


def _frame(
    svg: Markup, xs: Axis, ys: Axis, x_title: str, y_title: str, square: bool = False, data: str | None = None
) -> Markup:
    plot = tag("div", svg, class_="plot", tabindex=0 if data else None, data_lines=data)
    y_labels = [tag("span", ys.label(t), style=f"bottom:{ys.percent(t)}%") for t in ys.ticks]
    return tag(
        "div",
        tag("div", y_title, class_="ytitle") if y_title else None,
        tag("div", y_labels, class_="yticks", aria_hidden="true"),
        plot,
        tag("div", _tick_labels(xs, "left"), class_="ticks", aria_hidden="true"),
        tag("div", x_title, class_="xtitle"),
        class_="frame square" if square else "frame",
    )


def _tick_labels(scale: Axis, side: str) -> Markup:
    return join(tag("span", scale.label(t), style=f"{side}:{scale.percent(t)}%") for t in scale.ticks)


def _vertical(percent: float, style: str) -> Markup:
    return tag("line", x1=f"{percent}%", x2=f"{percent}%", y1="0%", y2="100%", class_=style)


def _horizontal(percent: float, style: str) -> Markup:
    return tag("line", x1="0%", x2="100%", y1=f"{100 - percent}%", y2=f"{100 - percent}%", class_=style)
