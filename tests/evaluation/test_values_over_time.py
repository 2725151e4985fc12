"""Values over an episode: the numbers, and where they are drawn."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from qsft.data import Trajectory, Turn
from qsft.errors import ConfigError, DataError
from qsft.evaluation.drawing import Drawing
from qsft.evaluation.values_over_time import LINES, TurnValue, save_values, turn_values, values_drawing

SVG = "{http://www.w3.org/2000/svg}"


class Expects:
    """V is the number of turns before, Q of token k of a reply 10 times that and k + 0.5; a reply has a token a letter."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def state_values(self, histories: list[Trajectory], backup_beta: float | None) -> list[float]:
        assert all(not history.turns[-1].is_agent for history in histories)
        self.batches.append(len(histories))
        return [float(len(history.turns) - 1) for history in histories]

    def q_values(self, history: Trajectory, candidates: list[str]) -> list:
        (text,) = candidates
        tokens = [SimpleNamespace(q=10 * (len(history.turns) - 1) + place + 0.5) for place in range(len(text))]
        return [SimpleNamespace(q=tokens[-1].q, tokens=tokens)]


def episode(rewards: list[float], texts: list[str]) -> Trajectory:
    turns = [Turn("user", "go")]
    for text, reward in zip(texts, rewards, strict=True):
        turns += [Turn("assistant", text, reward), Turn("user", "on")]
    return Trajectory(turns, "truncated")


def test_the_values_of_each_turn() -> None:
    policy = Expects()
    turns = turn_values(policy, episode([1.0, 0.0, 4.0], ["a", "bc", "def"]))
    assert [turn.text for turn in turns] == ["a", "bc", "def"]
    assert [turn.value for turn in turns] == [0.0, 2.0, 4.0]
    assert [turn.first_q for turn in turns] == [0.5, 20.5, 40.5]
    assert [turn.q for turn in turns] == [0.5, 21.5, 42.5]
    assert [turn.return_to_go for turn in turns] == [5.0, 4.0, 4.0]
    discounted = turn_values(policy, episode([1.0, 0.0, 4.0], ["a", "bc", "def"]), gamma=0.5)
    assert [turn.return_to_go for turn in discounted] == [2.0, 2.0, 4.0]
    each = turn_values(policy, episode([0.0, 4.0], ["a", "bc"]), gamma=0.5, gamma_per="token")
    assert [turn.return_to_go for turn in each] == [1.0, 2.0]
    policy.batches.clear()
    assert len(turn_values(policy, episode([0.0] * 40, ["x"] * 40))) == 40
    assert max(policy.batches) <= 16, "long episodes do not fill the memory"
    with pytest.raises(DataError, match="turns of the agent, each with its reward"):
        turn_values(policy, Trajectory([Turn("user", "go")], "terminated"))


TURNS = [
    TurnValue("a\n", 0.0, 0.2, 0.1, 1.0, 0.0),
    TurnValue("<b>\n", 0.5, 0.4, 0.3, 1.0, -1.0),
    TurnValue("c\n", 1.0, 0.9, 0.8, 2.0, 2.0),
]


def test_what_is_drawn() -> None:
    root = ET.fromstring(values_drawing(TURNS, "Game <1>").svg())
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert "Game <1>" in texts and {name for name, _, _ in LINES} <= set(texts)
    assert "−1" in texts and "+2" in texts, "rewards that are not 0"
    lines = {line.get("stroke"): points(line) for line in root.iter(f"{SVG}polyline") if len(points(line)) == 3}
    by_name = {name: lines[colour] for name, colour, _ in LINES}
    assert len({tuple(x for x, _ in line) for line in lines.values()}) == 1
    xs = [x for x, _ in by_name["V before the turn"]]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)
    # one linear scale for all: heights against the values that they stand for
    truth = {
        "V before the turn": [0.0, 0.5, 1.0],
        "Q of its first token": [0.2, 0.4, 0.9],
        "Q of all of it": [0.1, 0.3, 0.8],
        "return that followed": [1.0, 1.0, 2.0],
    }
    values = np.concatenate([truth[name] for name in by_name])
    heights = np.concatenate([[y for _, y in line] for line in by_name.values()])
    slope, start = np.polyfit(values, heights, 1)
    assert slope < 0 and np.abs(slope * values + start - heights).max() < 0.1
    ticks = {float(text.text.replace("−", "-")): float(text.get("y")) for text in axis_labels(root)}
    for tick, y in ticks.items():
        assert slope * tick + start == pytest.approx(y - 4, abs=0.2), "the axis says what the lines mean"


def points(line: ET.Element) -> list[tuple[float, float]]:
    return [tuple(map(float, pair.split(","))) for pair in line.get("points", "").split()]  # type: ignore[misc]


def axis_labels(root: ET.Element) -> list[ET.Element]:
    return [text for text in root.iter(f"{SVG}text") if text.get("text-anchor") == "end" and float(text.get("x")) < 60]


def test_a_film_unfolds() -> None:
    def longest(until: int | None) -> int:
        root = ET.fromstring(values_drawing(TURNS, "t", until=until).svg())
        return max(len(points(line)) for line in root.iter(f"{SVG}polyline"))

    assert (longest(None), longest(2), longest(1)) == (3, 3, 2)
    circles = ET.fromstring(values_drawing(TURNS, "t", until=0).svg()).findall(f".//{SVG}circle")
    assert len(circles) == len(LINES), "a dot for each at the first turn"
    rewards = [text.text for text in ET.fromstring(values_drawing(TURNS, "t", until=1).svg()).iter(f"{SVG}text")]
    assert "−1" in rewards and "+2" not in rewards, "nothing of what is to come"


def test_files(tmp_path: Path) -> None:
    save_values(TURNS, tmp_path / "a/values.svg", "Game")
    ET.parse(tmp_path / "a/values.svg")
    save_values(TURNS, tmp_path / "values.html", "Game")
    page = (tmp_path / "values.html").read_text()
    assert "<svg" in page and "&lt;b&gt;" in page and "<b>" not in page
    assert not re.search(r'(src|href)="(?!#)', page), "it loads nothing"
    save_values(TURNS, tmp_path / "values.png", "Game")
    with Image.open(tmp_path / "values.png") as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    for _, colour, _ in LINES:
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (np.abs(pixels - wanted).max(1) < 12).any(), colour
    with pytest.raises(ConfigError, match=r"values\.gif: charts of values end in"):
        save_values(TURNS, tmp_path / "values.gif", "Game")
    save_values(TURNS[:1], tmp_path / "one.png", "Game")


def test_pixels_and_dashes() -> None:
    drawing = Drawing(40, 20, "a line")
    drawing.line([(0, 5), (40, 5)], "#000000", 2)
    drawing.line([(0, 15), (40, 15)], "#000000", 2, dashes=5)
    pixels = np.asarray(drawing.image().convert("L"))
    assert (pixels[5] < 100).all()
    inked = pixels[15] < 128
    assert inked[:4].all() and not inked[6:9].any() and inked[11:14].all(), "five on, five off"
    assert (pixels[10] == 255).all()
