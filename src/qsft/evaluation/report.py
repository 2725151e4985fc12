"""The report: one HTML file that needs nothing else and opens anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from qsft.data.text_files import write_text
from qsft.evaluation.calibration import Calibration
from qsft.evaluation.games import Game, games_html
from qsft.evaluation.grid import GridRow
from qsft.evaluation.markup import Markup, tag
from qsft.evaluation.results import ResultRow
from qsft.evaluation.sections import (
    Reference,
    calibration_html,
    curves_html,
    grids_html,
    results_html,
    summary_html,
)
from qsft.evaluation.statistics import Scale

# Nothing may be loaded, from anywhere: the browser itself enforces it.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


@dataclass(slots=True)
class Report:
    """Everything the report shows. Empty parts are left out.

    Attributes:
        title: heading of the page.
        summary: what was run. Plain values are listed first; each nested mapping becomes a block with its own heading
            (for example ``{"Data": {...}, "Config": {...}}``).
        rows: results, of any number of environments; each gets its table and plot.
        grids: decoding grids by title, with the chosen setting marked.
        curves: charts by title, each a list of ``{"step", "name", "value"}``: one line per name.
        calibration: predicted values and what followed.
        games: shown turn by turn.
        notes: paragraphs after the results.
        references: published numbers, mean of the data.
        scales: anchors of the normalised score by environment; without one the score is left out.
    """

    title: str
    summary: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[ResultRow] = ()
    grids: Mapping[str, Sequence[GridRow]] = field(default_factory=dict)
    curves: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    calibration: Sequence[Calibration] = ()
    games: Sequence[Game] = ()
    notes: Sequence[str] = ()
    references: Sequence[Reference] = ()
    scales: Mapping[str, Scale] = field(default_factory=dict)


def write_report(report: Report, path: str | Path) -> None:
    """Writes the report as one self-contained HTML file, whole or not at all.

    Raises:
        DataError: a part of the report cannot be drawn (the message says which), or the file cannot be written.
    """
    write_text(path, report_html(report))


def report_html(report: Report) -> str:
    """The page as text. Every text of the report is escaped."""
    parts = [
        ("results", "Results", results_html(report.rows, report.references, report.scales, report.notes)),
        ("run", "What was run", summary_html(report.summary)),
        ("grids", "Decoding grids", grids_html(report.grids)),
        ("curves", "Learning curves", curves_html(report.curves)),
        ("calibration", "Value calibration", calibration_html(report.calibration)),
        ("games", "Games", games_html(report.games)),
    ]
    return page(report.title, [(name, heading, body) for name, heading, body in parts if body])


def page(title: str, sections: Sequence[tuple[str, str, Any]]) -> str:
    """A self-contained page of sections, each with its anchor, heading and content."""
    links = [tag("a", heading, href=f"#{name}") for name, heading, _ in sections]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", _asset("report.css")),
    )
    body = tag(
        "body",
        tag("header", tag("h1", title), tag("nav", links, aria_label="Sections")),
        tag("main", (tag("section", tag("h2", h), content, id=name) for name, h, content in sections)),
        tag("script", _asset("report.js")),
    )
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


def _asset(name: str) -> Markup:
    return Markup(resources.files("qsft.evaluation").joinpath(name).read_text(encoding="utf-8"))
