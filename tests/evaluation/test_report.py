"""The page: complete, well formed, escaped, and closed to the network."""

import json
import math
import re
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest

from qsft.errors import DataError
from qsft.evaluation import (
    LMRL_GYM_SCALES,
    Calibration,
    Cell,
    Estimate,
    Game,
    GameTurn,
    GridRow,
    Reference,
    Report,
    calibration_bias,
    calibration_bins,
    log_points,
    mean_interval,
    report_html,
    write_report,
)
from qsft.evaluation.charts import MAX_POINTS, axis, line_chart
from qsft.evaluation.markup import Markup, join, number, tag
from tests.evaluation.toys import row

EVIL = "<script>alert('x')</script>&\"'<img src=http://evil.example/x.png>"
VOID = {"meta", "br", "hr"}


class Page(HTMLParser):
    """Checks that tags nest, and collects them with their attributes and the text."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, name, attributes):
        names = [key for key, _ in attributes]
        assert len(names) == len(set(names)), (name, names)
        self.tags.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open
        assert self.open.pop() == name

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(data)

    def find(self, name, /, **attributes):
        return [a for n, a in self.tags if n == name and all(a.get(k.rstrip("_")) == v for k, v in attributes.items())]


def evaluation(mean, success=0.5):
    return {"return_mean": mean, "return_ci95": [mean - 0.1, mean + 0.1], "episodes": 50, "success_rate": success}


def full(text="plain text"):
    """A report with every part, and ``text`` wherever a text can stand."""
    cells = [
        Cell("c", "g", -2.25, [("c", 0.5, -2.25, 0.875), (text, 0.25, -3.5, 0.125)]),
        Cell(text, "y", -4.5),
        Cell("b", "b"),
        Cell("n"),
    ]
    return Report(
        title=text,
        summary={text: text, "games": 3, "Data": {text: {"nested": text}}},
        rows=[
            row(method=text, config={text: text}, command=text),
            row(method=text, config=text, command=text, seed=1),
            row(method="sft", env=text, extra={text: text}),
        ],
        grids={text: [GridRow({text: text, "beta": 4}, evaluation(-3)), GridRow({"beta": 8}, evaluation(-2), True)]},
        curves={text: [{"step": s, "name": text, "value": 1 / (s + 1)} for s in range(5)]},
        calibration=[Calibration(text, np.linspace(-5, -1, 50), np.linspace(-5, 0, 50))],
        games=[Game(text, [GameTurn(cells, text)], text)],
        notes=[text],
        references=[
            Reference(text, -3.81, text, env="wordle"),
            Reference("data mean " + text, -4.12, text, kind="line"),
        ],
        scales={"wordle": LMRL_GYM_SCALES["wordle"]},
    )


def test_page_nests_and_has_unique_ids_that_its_links_reach():
    page = Page(report_html(full()))
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    links = [a["href"] for a in page.find("a")]
    assert links == ["#results", "#run", "#grids", "#curves", "#calibration", "#games"]
    described = [a["aria-describedby"] for _, a in page.tags if "aria-describedby" in a]
    assert described
    assert {link[1:] for link in links} | set(described) <= set(ids)
    assert page.find("html", lang="en")
    assert page.find("meta", name="viewport")


def test_every_text_is_escaped():
    plain, evil = Page(report_html(full())), Page(report_html(full(EVIL)))
    # Both texts have two words; all else being equal, the evil one may add no tag and no attribute.
    assert [(name, set(attributes)) for name, attributes in evil.tags] == [
        (name, set(attributes)) for name, attributes in plain.tags
    ]
    text = "".join(evil.texts)
    assert text.count(EVIL) >= 15
    (script,) = re.findall(r"<script>(.*?)</script>", report_html(full(EVIL)), re.DOTALL)
    assert "alert(" not in script


def test_nothing_is_loaded_from_anywhere():
    html = report_html(full())
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<link|<iframe|<img|<object|srcset|\bimport\(|fetch\(", html)
    page = Page(html)
    assert not [a for _, a in page.tags if "src" in a]
    assert all(a.get("href", "#").startswith("#") for _, a in page.tags)
    (policy,) = [a["content"] for a in page.find("meta") if "http-equiv" in a]
    assert policy.startswith("default-src 'none';")


def test_numbers_of_the_results_are_in_the_page():
    report = full()
    report.rows = [row(return_mean=-2.0), row(method="sft", return_mean=-2.5, return_ci95=(-2.6, -2.4))]
    text = " ".join(Page(report_html(report)).texts)
    for part in ("−2.00", "[−2.20, −1.80]", "90.0%", "[82.6, 94.5]", "−2.50", "98.6", "−3.81", "best"):
        assert part in text
    assert "overlaps best" not in text
    report.rows = [row(), row(method="sft", return_mean=-2.1, return_ci95=(-2.3, -1.9))]
    assert "overlaps best" in " ".join(Page(report_html(report)).texts)


def test_dots_and_references_stand_where_their_numbers_say():
    report = Report("x", rows=[row()], references=[Reference("mean", -4.0, "", "line"), Reference("paper", -3.0, "p")])
    page = Page(report_html(report))
    (dot,) = page.find("circle", class_="dot")
    (diamond,) = [a for name, a in page.tags if name == "svg" and a.get("overflow")]
    # Linear between the ends: the reference at -4 and the top of the interval at -1.8, with 4% of that on each side.
    low, high = -4.0 - 0.04 * 2.2, -1.8 + 0.04 * 2.2
    assert float(dot["cx"].rstrip("%")) == pytest.approx(100 * (-2 - low) / (high - low), abs=0.01)
    assert float(diamond["x"].rstrip("%")) == pytest.approx(100 * (-3 - low) / (high - low), abs=0.01)
    (vertical,) = {a["x1"] for a in page.find("line", class_="reference")}
    assert float(vertical.rstrip("%")) == pytest.approx(100 * (-4 - low) / (high - low), abs=0.01)
    interval = [a for a in page.find("line", class_="interval") if a["y1"] == a["y2"]]
    assert float(interval[0]["x2"].rstrip("%")) == pytest.approx(100 * (-1.8 - low) / (high - low), abs=0.01)


def test_empty_parts_are_left_out():
    page = Page(report_html(Report("only a title")))
    assert not page.find("section")
    assert not page.find("a")
    only_games = Page(report_html(Report("x", games=[Game("g", [GameTurn([Cell("a", "g")])])])))
    assert [a["id"] for a in only_games.find("section")] == ["games"]


def test_tiles_tell_state_and_value_without_colour():
    page = Page(report_html(full()))
    (button,) = page.find("button")
    assert button["aria-label"] == "c, green, right place, Q −2.25"
    labels = [a["aria-label"] for a in page.find("div", role="img")]
    assert labels == ["plain text, yellow, elsewhere, Q −4.50", "b, grey, absent", "n, not judged"]
    text = " ".join(page.texts)
    for part in ("0.500", "−3.50", "0.875", "c (chosen)", "the bar runs from −4.50 to −2.25"):
        assert part in " ".join(text.split()).replace("c  (chosen)", "c (chosen)")
    bars = [a["style"] for a in page.find("span") if "style" in a]
    assert "width:100.0%" in bars
    assert "width:0.0%" in bars


def test_curves_are_drawn_to_scale_with_gaps_and_readable_values():
    points = [{"step": s, "name": "loss", "value": v} for s, v in [(0, 2.0), (10, 1.0), (20, math.nan), (40, 0.0)]]
    html = line_chart(points, "Loss")
    page = Page(html)
    (path,) = page.find("path")
    # The x axis ends at the first and last step; the y axis leaves 4% above and below.
    y = [1000 - 1000 * (v + 0.08) / 2.16 for v in (2.0, 1.0, 0.0)]
    numbers = [float(n) for n in re.findall(r"[\d.]+", path["d"])]
    assert numbers == pytest.approx([0, y[0], 250, y[1], 1000, y[2]], abs=0.11)
    assert re.sub(r"[^ML]", "", path["d"]) == "MLM"
    (plot,) = [a for a in page.find("div") if a.get("data-lines")]
    assert [point[:2] for point in json.loads(plot["data-lines"])[0]] == [
        [0, "2.000"],
        [10, "1.000"],
        [20, "–"],
        [40, "0.0000"],
    ]
    (svg,) = page.find("svg", role="img")
    assert svg["aria-label"] == "Loss. loss: 2.000 at step 0, 0.0000 at step 40."
    assert "0.0000" in "".join(page.texts)


def test_long_curves_are_thinned_to_means_of_runs():
    n = 3 * MAX_POINTS
    page = Page(line_chart([{"step": s, "name": "a", "value": s % 3} for s in range(n)], "t"))
    (plot,) = [a for a in page.find("div") if a.get("data-lines")]
    (line,) = json.loads(plot["data-lines"])
    assert len(line) == MAX_POINTS
    assert {point[1] for point in line} == {"1.000"}
    assert line[-1][0] == n - 1


def test_curves_with_bad_points_name_them():
    with pytest.raises(DataError, match="chart 't', point 2"):
        line_chart([{"step": 0, "name": "a", "value": 1}, {"step": 1, "value": 1}], "t")
    with pytest.raises(DataError, match="no points"):
        line_chart([], "t")


def test_points_of_a_training_log(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 10, "loss": 1.5, "lr": 0.1}\n{"step": 20, "loss": 1.25}\n{"step": 20, "runtime": 3}\n')
    assert log_points(log, {"loss": "train", "lr": "rate"}) == [
        {"step": 10, "name": "train", "value": 1.5},
        {"step": 10, "name": "rate", "value": 0.1},
        {"step": 20, "name": "train", "value": 1.25},
    ]
    with pytest.raises(DataError, match="none of the fields nonsense"):
        log_points(log, {"nonsense": "x"})
    log.write_text('{"step": 10, "loss": 1.5}\n{"loss": 1}\n')
    with pytest.raises(DataError, match=r"log.jsonl, row 2"):
        log_points(log, {"loss": "x"})
    with pytest.raises(DataError, match="cannot be read"):
        log_points(tmp_path / "none", {"loss": "x"})


@pytest.mark.parametrize("ends", [(0, 1), (-6, -1.94), (1e-7, 3e-7), (-1e6, 5e6), (3, 3), (0, 0), (99.9, 100)])
def test_axes_hold_their_values_and_have_round_ticks(ends):
    found = axis(ends)
    assert found.low < min(ends) <= max(ends) < found.high
    assert 3 <= len(found.ticks) <= 10
    assert all(found.low - 1e-9 <= tick <= found.high + 1e-9 for tick in found.ticks)
    step = found.ticks[1] - found.ticks[0]
    mantissa = step / 10 ** math.floor(math.log10(step * 1.0001))
    assert min(abs(mantissa - m) for m in (1, 2, 2.5, 5)) < 1e-6
    assert len({found.label(tick) for tick in found.ticks}) == len(found.ticks)
    assert found.percent(found.low) == 0
    assert found.percent(found.high) == 100


def test_calibration_bins_against_a_loop():
    rng = np.random.default_rng(0)
    predicted = np.round(rng.normal(-3, 1, 997), 1)
    realised = predicted + rng.normal(-0.5, 1, 997)
    bins = calibration_bins(Calibration("v", predicted, realised))
    assert 8 <= len(bins) <= 10
    assert sum(b.n for b in bins) == 997
    assert all(left.high < right.low for left, right in pairwise(bins))
    for b in bins:
        inside = [r for p, r in zip(predicted, realised, strict=True) if b.low <= p <= b.high]
        expected = mean_interval(inside)
        assert b.n == expected.n
        assert (b.realised.mean, b.realised.low) == pytest.approx((expected.mean, expected.low))
        assert b.predicted == pytest.approx(np.mean([p for p in predicted if b.low <= p <= b.high]))
    bias = calibration_bias(Calibration("v", predicted, realised))
    assert bias.low < 0.5 < bias.high
    assert bias.mean == pytest.approx(float(np.mean(predicted - realised)))


def test_calibration_of_few_or_equal_predictions():
    assert [b.n for b in calibration_bins(Calibration("v", [1.0] * 5, [2.0] * 5))] == [5]
    few = calibration_bins(Calibration("v", [1.0, 2.0], [3.0, 4.0]))
    assert [(b.n, b.realised) for b in few] == [(1, Estimate(m, -math.inf, math.inf, 1)) for m in (3.0, 4.0)]
    Page(report_html(Report("x", calibration=[Calibration("v", [1.0, 2.0], [3.0, 4.0])])))
    for predicted, realised in [([], []), ([1.0], [1.0, 2.0]), ([math.nan], [1.0])]:
        with pytest.raises(DataError, match="calibration 'v'"):
            calibration_bins(Calibration("v", predicted, realised))


def test_unbounded_intervals_do_not_break_the_page():
    one = row(episodes=1, return_ci95=(-math.inf, math.inf))
    text = " ".join(Page(report_html(Report("x", rows=[one]))).texts)
    assert "[?]" in text
    assert "inf" not in text
    assert "nan" not in text


def test_report_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "demo" / "report.html"
    write_report(full(), path)
    written = path.read_text(encoding="utf-8")
    assert written == report_html(full())
    bad = full()
    bad.curves = {"empty": []}
    with pytest.raises(DataError, match="empty"):
        write_report(bad, path)

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(DataError, match="No space left"):
        write_report(full("other"), path)
    assert path.read_text(encoding="utf-8") == written
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_markup_escapes_unless_it_was_made_here():
    assert tag("p", "<b>", Markup("<i></i>"), None, ["&", 3], title='"<', hidden=True, lang=None) == (
        '<p title="&quot;&lt;" hidden>&lt;b&gt;<i></i>&amp;3</p>'
    )
    assert join(["<", Markup("<br>")], "&") == "&lt;&amp;<br>"
    assert [number(v) for v in (-0.001, -1234.5, 0.125, None)] == ["0.00", "−1,234.50", "0.12", "–"]
