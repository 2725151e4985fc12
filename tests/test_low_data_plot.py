"""The chart of the low-data studies: every row is where it belongs."""

from __future__ import annotations

import runpy
from pathlib import Path
from xml.etree import ElementTree

import pytest

from qsft.errors import ConfigError, DataError
from qsft.evaluation import Estimate, ResultRow, ResultsFile
from qsft.evaluation.panels import MOST, panel_chart
from qsft.study_file import Study

FOLDER = Path(__file__).parents[1] / "experiments/low-data"
PLOT = runpy.run_path(str(FOLDER / "plot.py"))
SVG = "{http://www.w3.org/2000/svg}"


def result(method: str, config: str, seed: int, value: float) -> ResultRow:
    ends = (value - 0.5, value + 0.5)
    return ResultRow(
        "twenty-questions", method, seed, 500, value, ends, 0.5, (0.4, 0.6), config, "c", "2026-01-01", 1.0
    )


def test_chart(tmp_path: Path) -> None:
    file = ResultsFile(tmp_path / "results.json")
    for seed in (0, 1, 2):
        for share, value in (("3%", -17.0), ("100%", -11.0)):
            file.add(result("qsft", f"Q-SFT, {share}, large", seed, value))
        file.add(result("sft", "SFT, 3%, small", seed, -18.0))
    panels = PLOT["read"](file.path)
    assert {size: {m: list(points) for m, points in lines.items()} for size, lines in panels.items()} == {
        "two layers of 128": {"SFT": [300]},
        "four layers of 256": {"Q-SFT": [300, 10000]},
    }
    root = ElementTree.fromstring(panel_chart(panels, PLOT["AXES"]))
    small, large = root.findall(f"{SVG}g")
    (sft,) = small.findall(f"{SVG}circle")
    few, many = large.findall(f"{SVG}circle")
    place = [(float(dot.get("cx", "")), float(dot.get("cy", ""))) for dot in (sft, few, many)]
    assert place[0][0] == place[1][0] < place[2][0], "300 games left of 10,000"
    assert place[0][1] > place[1][1] > place[2][1], "higher returns are higher"
    assert (place[0][1] - place[1][1]) * 6 == pytest.approx(place[1][1] - place[2][1], rel=0.02), "on one scale"
    assert "Q-SFT: −17.00 from 300 games, −11.00 from 10,000 games" in root.get("aria-label", "")


def test_two_seeds_have_an_interval_over_their_episodes(tmp_path: Path) -> None:
    file = ResultsFile(tmp_path / "results.json")
    for seed, value in enumerate((-18.0, -17.0)):
        file.add(result("sft", "SFT, 3%, small", seed, value))
    (line,) = PLOT["read"](file.path)["two layers of 128"].values()
    half = 0.5 / 2**0.5
    assert (line[300].low, line[300].mean, line[300].high) == pytest.approx((-17.5 - half, -17.5, -17.5 + half))
    file.add(result("sft", "SFT, 3%, small", 2, -16.0))
    (line,) = PLOT["read"](file.path)["two layers of 128"].values()
    assert line[300].half_width == pytest.approx(4.302653 / 3**0.5)


def test_each_method_has_a_style_and_more_are_refused() -> None:
    lines = {f"method {i}": {300: Estimate(i, i - 1, i + 1, 9)} for i in range(MOST)}
    chart = panel_chart({"small": lines}, PLOT["AXES"])
    style = chart[: chart.index("</style>")]
    used = {name for element in ElementTree.fromstring(chart).iter() for name in element.get("class", "").split()}
    assert len([name for name in used if name[0] == "s"]) == MOST
    assert all(f".{name} {{" in style for name in used - {"title"}) and all(f"--c{i}:" in style for i in range(MOST))
    with pytest.raises(ConfigError, match=f"tells {MOST} methods apart, here are {MOST + 1}: method 0, "):
        panel_chart({"small": lines | {"one more": {300: Estimate(0, -1, 1, 9)}}}, PLOT["AXES"])


def test_no_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no row of the low-data studies"):
        PLOT["read"](tmp_path / "results.json")


def test_both_sizes_are_the_same_but_for_the_model() -> None:
    small, large = (Study.load(FOLDER / f"{size}.yaml") for size in ("small", "large"))
    assert [run.name.replace("small", "large") for run in small.runs] == [run.name for run in large.runs]
    assert [run.settings for run in small.runs] == [run.settings for run in large.runs]
    for name in ("collect", "decoding", "behaviour", "likelihood", "critic", "pretrain", "select", "test"):
        assert getattr(small, name) == getattr(large, name), name
