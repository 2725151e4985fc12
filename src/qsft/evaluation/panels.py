"""Mean results against a quantity on a logarithmic scale, a panel a case, a line a method with its 95% interval: SVG."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qsft.data.text_files import write_text
from qsft.errors import ConfigError
from qsft.evaluation.charts import Axis, axis
from qsft.evaluation.markup import Markup, join, number, tag
from qsft.evaluation.statistics import Estimate

WIDTH, HEIGHT, LEFT, TOP, GAP = 330, 260, 66, 34, 60
_STYLE = """
svg { --ink: #20242a; --muted: #5a626d; --rule: #e2e2dc; font: 13px system-ui, sans-serif; background: #ffffff; }
svg { --c0: #24598f; --c1: #b0501c; --c2: #2f7a4d; --c3: #7a4fa3; --c4: #a8324a; }
@media (prefers-color-scheme: dark) {
  svg { --ink: #e5e7ea; --muted: #a3abb6; --rule: #31373f; background: #14171b; }
  svg { --c0: #8ab8ea; --c1: #ee9f6b; --c2: #83c99b; --c3: #c3a3e6; --c4: #ee8fa1; }
}
text { fill: var(--muted); } .title { fill: var(--ink); font-weight: 600; }
.grid { stroke: var(--rule); } .reference { stroke: var(--muted); stroke-dasharray: 2 4; }
.line { fill: none; stroke-width: 2; } .band { stroke: none; opacity: 0.14; }
.s0 { stroke: var(--c0); } .s1 { stroke: var(--c1); stroke-dasharray: 7 4; }
.s2 { stroke: var(--c2); stroke-dasharray: 2 4; } .s3 { stroke: var(--c3); stroke-dasharray: 9 4 2 4; }
.s4 { stroke: var(--c4); stroke-dasharray: 16 3; }
.f0 { fill: var(--c0); } .f1 { fill: var(--c1); } .f2 { fill: var(--c2); } .f3 { fill: var(--c3); }
.f4 { fill: var(--c4); }
"""

#: Quantity -> result, for each method.
Lines = Mapping[str, Mapping[int, Estimate]]
#: Methods that a chart tells apart: the style above has as many lines.
MOST = 5


@dataclass(frozen=True)
class Axes:
    """What all panels share.

    Attributes:
        result, quantity: titles of the vertical and the horizontal axis.
        reference: a value with a dotted line of its own, and its name.
    """

    result: str
    quantity: str
    reference: tuple[str, float]


def panel_chart(panels: Mapping[str, Lines], axes: Axes) -> Markup:
    """All panels over one another's axes, and the legend below.

    Args:
        panels: title -> lines, from left to right; one of them holds a point.
        axes: the titles.

    Raises:
        ConfigError: more than :data:`MOST` methods.
    """
    panels = {
        title: {method: dict(sorted(points.items())) for method, points in lines.items()}
        for title, lines in panels.items()
    }
    estimates = [point for lines in panels.values() for points in lines.values() for point in points.values()]
    quantities = sorted({x for lines in panels.values() for points in lines.values() for x in points})
    ys = axis([end for e in estimates for end in (e.mean, e.low, e.high)] + [axes.reference[1]], ticks=6)
    xs = Axis(
        math.log(quantities[0] / 1.3), math.log(quantities[-1] * 1.3), tuple(math.log(value) for value in quantities)
    )
    methods = list(dict.fromkeys(method for lines in panels.values() for method in lines))
    if len(methods) > MOST:
        raise ConfigError(f"a chart tells {MOST} methods apart, here are {len(methods)}: {', '.join(methods)}")
    drawn = [
        tag("g", _panel(title, lines, methods, quantities, xs, ys, axes), transform=f"translate({x} {TOP})")
        for x, (title, lines) in zip(range(LEFT, 10_000, WIDTH + GAP), panels.items())
    ]
    width, below = LEFT + max(len(panels) * (WIDTH + GAP), len(methods) * 150), TOP + HEIGHT
    legend = [
        join(
            [
                tag(
                    "line", x1=LEFT + 150 * i, x2=LEFT + 150 * i + 28, y1=below + 58, y2=below + 58, class_=f"line s{i}"
                ),
                tag("text", method, x=LEFT + 150 * i + 36, y=below + 62, class_="title"),
            ]
        )
        for i, method in enumerate(methods)
    ]
    spoken = "; ".join(
        f"{title}, {method}: " + ", ".join(f"{number(e.mean)} from {x:,} {axes.quantity}" for x, e in points.items())
        for title, lines in panels.items()
        for method, points in lines.items()
    )
    size = {"viewBox": f"0 0 {width} {below + 76}", "width": width, "height": below + 76}
    xml = {"xmlns": "http://www.w3.org/2000/svg", "role": "img", "aria_label": f"Mean {axes.result}. {spoken}."}
    return tag("svg", tag("style", Markup(_STYLE)), drawn, legend, **size, **xml)


def chart_command(
    description: str,
    folder: Path,
    read: Callable[[Path], Mapping[str, Lines]],
    axes: Axes,
    argv: Sequence[str] | None = None,
) -> None:
    """A script's command line: ``--results`` (default: the folder's ``results.json``) to ``--out`` (``curves.svg``).

    Args:
        description: of ``--help``.
        folder: where both files are by default.
        read: the panels of a results file.
        axes: the titles.
        argv: arguments; ``None``: the process's.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=folder / "results.json")
    parser.add_argument("--out", type=Path, default=folder / "curves.svg")
    arguments = parser.parse_args(argv)
    write_text(arguments.out, panel_chart(read(arguments.results), axes) + "\n")
    print(arguments.out)


def _panel(
    title: str, lines: Lines, methods: Sequence[str], quantities: Sequence[int], xs: Axis, ys: Axis, axes: Axes
) -> list[Markup]:
    def x(value: int) -> float:
        return xs.percent(math.log(value)) * WIDTH / 100

    def y(value: float) -> float:
        return HEIGHT - ys.percent(value) * HEIGHT / 100

    parts = [tag("text", title, x=0, y=-12, class_="title")]
    for tick in ys.ticks:
        parts.append(tag("line", x1=0, x2=WIDTH, y1=y(tick), y2=y(tick), class_="grid"))
        parts.append(tag("text", ys.label(tick), x=-8, y=y(tick) + 4, text_anchor="end"))
    parts += [tag("text", f"{value:,}", x=x(value), y=HEIGHT + 18, text_anchor="middle") for value in quantities]
    parts.append(tag("text", axes.result, x=-8, y=-12, text_anchor="end"))
    parts.append(tag("text", axes.quantity, x=WIDTH / 2, y=HEIGHT + 36, text_anchor="middle"))
    name, reference = axes.reference
    parts.append(tag("line", x1=0, x2=WIDTH, y1=y(reference), y2=y(reference), class_="reference"))
    parts.append(tag("text", name, x=WIDTH, y=y(reference) - 4, text_anchor="end"))
    for i, method in enumerate(methods):
        points = lines.get(method, {})
        known = {value: e for value, e in points.items() if math.isfinite(e.low) and math.isfinite(e.high)}
        upper = [f"{x(value):.1f},{y(e.high):.1f}" for value, e in known.items()]
        lower = [f"{x(value):.1f},{y(e.low):.1f}" for value, e in reversed(known.items())]
        means = [f"{x(value):.1f},{y(e.mean):.1f}" for value, e in points.items()]
        parts.append(tag("polygon", points=" ".join([*upper, *lower]), class_=f"band f{i}"))
        parts.append(tag("polyline", points=" ".join(means), class_=f"line s{i}"))
        parts += [
            tag("circle", cx=f"{x(v):.1f}", cy=f"{y(e.mean):.1f}", r=3.5, class_=f"f{i}") for v, e in points.items()
        ]
    return parts
