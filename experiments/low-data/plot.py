"""Return against games to learn from, a panel a model size, a line a method with its 95% interval: an SVG file.

python experiments/low-data/plot.py [--results experiments/low-data/results.json] [--out FILE]
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from qsft.data.text_files import write_text
from qsft.errors import DataError
from qsft.evaluation import GAME_SCALES, Estimate, ResultsFile, summarise
from qsft.evaluation.charts import Axis, axis
from qsft.evaluation.markup import Markup, join, number, tag
from qsft.study_file import Study

HERE = Path(__file__).parent
#: Study and title of each panel, from left to right.
PANELS = {"small": "two layers of 96", "large": "three layers of 192"}
WIDTH, HEIGHT, LEFT, TOP, GAP = 330, 260, 52, 34, 46
STYLE = """
svg { --ink: #20242a; --muted: #5a626d; --rule: #e2e2dc; font: 13px system-ui, sans-serif; background: #ffffff; }
svg { --c0: #24598f; --c1: #b0501c; --c2: #2f7a4d; --c3: #7a4fa3; }
@media (prefers-color-scheme: dark) {
  svg { --ink: #e5e7ea; --muted: #a3abb6; --rule: #31373f; background: #14171b; }
  svg { --c0: #8ab8ea; --c1: #ee9f6b; --c2: #83c99b; --c3: #c3a3e6; }
}
text { fill: var(--muted); } .title { fill: var(--ink); font-weight: 600; }
.grid { stroke: var(--rule); } .reference { stroke: var(--muted); stroke-dasharray: 2 4; }
.line { fill: none; stroke-width: 2; } .band { stroke: none; opacity: 0.14; }
.s0 { stroke: var(--c0); } .s1 { stroke: var(--c1); stroke-dasharray: 7 4; }
.s2 { stroke: var(--c2); stroke-dasharray: 2 4; } .s3 { stroke: var(--c3); stroke-dasharray: 9 4 2 4; }
.f0 { fill: var(--c0); } .f1 { fill: var(--c1); } .f2 { fill: var(--c2); } .f3 { fill: var(--c3); }
"""

#: Games -> return, for each method.
Lines = dict[str, dict[int, Estimate]]


def read(results: Path) -> dict[str, Lines]:
    """The lines of each panel, of the rows that there are.

    Raises:
        DataError: there is no row of either study.
    """
    rows = ResultsFile(results).rows()
    panels: dict[str, Lines] = {}
    for name in PANELS:
        study = Study.load(HERE / f"{name}.yaml")
        games = {run.name: int(study.collect[run.data]["episodes"]) for run in study.runs}
        found = [row for row in rows if row.config in games]
        lines: Lines = {}
        for summary in summarise(found) if found else ():
            config = str(summary.config)
            lines.setdefault(config.partition(",")[0], {})[games[config]] = summary.returns
        panels[name] = {method: dict(sorted(points.items())) for method, points in lines.items()}
    if not any(panels.values()):
        raise DataError(f"{results}: no row of the low-data studies; run qsft reproduce low-data first")
    return panels


def chart(panels: Mapping[str, Lines]) -> Markup:
    """All panels over one another's axes, and the legend below."""
    estimates = [point for lines in panels.values() for points in lines.values() for point in points.values()]
    games = sorted({x for lines in panels.values() for points in lines.values() for x in points})
    data_mean = GAME_SCALES["twenty-questions"].data_mean
    ys = axis([end for e in estimates for end in (e.mean, e.low, e.high)] + [data_mean], ticks=6)
    xs = Axis(math.log(games[0] / 1.3), math.log(games[-1] * 1.3), tuple(math.log(x) for x in games))
    methods = list(dict.fromkeys(method for lines in panels.values() for method in lines))
    drawn = [
        tag("g", _panel(PANELS[name], lines, methods, games, xs, ys, data_mean), transform=f"translate({x} {TOP})")
        for x, (name, lines) in zip(range(LEFT, 10_000, WIDTH + GAP), panels.items())
    ]
    width, below = LEFT + len(panels) * (WIDTH + GAP), TOP + HEIGHT
    legend = [
        join(
            [
                tag(
                    "line", x1=LEFT + 130 * i, x2=LEFT + 130 * i + 28, y1=below + 58, y2=below + 58, class_=f"line s{i}"
                ),
                tag("text", method, x=LEFT + 130 * i + 36, y=below + 62, class_="title"),
            ]
        )
        for i, method in enumerate(methods)
    ]
    spoken = "; ".join(
        f"{PANELS[name]}, {method}: " + ", ".join(f"{number(e.mean)} from {x:,} games" for x, e in points.items())
        for name, lines in panels.items()
        for method, points in lines.items()
    )
    size = {"viewBox": f"0 0 {width} {below + 76}", "width": width, "height": below + 76}
    xml = {"xmlns": "http://www.w3.org/2000/svg", "role": "img", "aria_label": f"Mean return. {spoken}."}
    return tag("svg", tag("style", Markup(STYLE)), drawn, legend, **size, **xml)


def _panel(
    title: str, lines: Lines, methods: Sequence[str], games: Sequence[int], xs: Axis, ys: Axis, data_mean: float
) -> list[Markup]:
    def x(value: int) -> float:
        return xs.percent(math.log(value)) * WIDTH / 100

    def y(value: float) -> float:
        return HEIGHT - ys.percent(value) * HEIGHT / 100

    parts = [tag("text", title, x=0, y=-12, class_="title")]
    for tick in ys.ticks:
        parts.append(tag("line", x1=0, x2=WIDTH, y1=y(tick), y2=y(tick), class_="grid"))
        parts.append(tag("text", ys.label(tick), x=-8, y=y(tick) + 4, text_anchor="end"))
    parts += [tag("text", f"{value:,}", x=x(value), y=HEIGHT + 18, text_anchor="middle") for value in games]
    parts.append(tag("text", "return", x=-8, y=-12, text_anchor="end"))
    parts.append(tag("text", "games", x=WIDTH / 2, y=HEIGHT + 36, text_anchor="middle"))
    parts.append(tag("line", x1=0, x2=WIDTH, y1=y(data_mean), y2=y(data_mean), class_="reference"))
    parts.append(tag("text", "data", x=WIDTH, y=y(data_mean) - 4, text_anchor="end"))
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=HERE / "results.json")
    parser.add_argument("--out", type=Path, default=HERE / "curves.svg")
    arguments = parser.parse_args()
    write_text(arguments.out, chart(read(arguments.results)) + "\n")
    print(arguments.out)


if __name__ == "__main__":
    main()
