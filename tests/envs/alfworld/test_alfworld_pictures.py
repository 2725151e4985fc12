"""The pictures: they show what the texts told, and nothing more."""

from __future__ import annotations

import copy
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from qsft.data.trajectory import Trajectory
from qsft.envs import make, make_policy
from qsft.envs.alfworld.facts import object_types, receptacle_types
from qsft.envs.alfworld.pictures import Painter, illustrate
from qsft.envs.alfworld.shapes import sprite, strokes
from qsft.envs.alfworld.view import View
from qsft.envs.rollout import rollout
from qsft.errors import ConfigError, DataError
from tests.envs.alfworld.test_alfworld_env import SPEC

WALK = ["go to microwave 1", "open microwave 1", "take egg 1 from microwave 1", "heat egg 1 with microwave 1"]


def seen(spec: dict[str, Any], actions: list[str], **options: Any) -> list[np.ndarray]:
    """The pictures of a walk."""
    env = make("alfworld", observation="both", **options)
    observation, _ = env.reset(options={"spec": spec})
    return [observation["image"], *(env.step(action)[0]["image"] for action in actions)]


def test_every_type_has_a_shape_of_its_own() -> None:
    names = [*object_types(), *receptacle_types()]
    names += [f"{name}/open" for name, kind in receptacle_types().items() if kind.openable]
    assert set(names) <= strokes().keys()
    drawn = {name: sprite(name, 48).tobytes() for name in strokes()}
    assert len(set(drawn.values())) == len(drawn)
    assert sprite("no such thing", 48).tobytes() == drawn["?"]
    for name in strokes():
        covered = np.asarray(sprite(name, 48))[..., 3].mean() / 255
        assert 0.08 < covered < 0.99, name


def test_what_no_text_told_changes_nothing() -> None:
    hidden = copy.deepcopy(SPEC)
    hidden["objects"].append({"name": "apple 1", "type": "apple", "in": "microwave 1", "props": ["pickupable"]})
    walk = ["go to microwave 1", "examine microwave 1", "go to shelf 2", "look", "inventory"]
    for ours, theirs in zip(seen(SPEC, walk), seen(hidden, walk), strict=True):
        assert np.array_equal(ours, theirs)
    ours, theirs = (seen(spec, WALK[:2]) for spec in (SPEC, hidden))
    assert np.array_equal(ours[1], theirs[1]) and not np.array_equal(ours[2], theirs[2]), "opened, it is seen"


def test_what_a_text_told_is_seen() -> None:
    pictures = seen(SPEC, [*WALK, "nonsense"])
    for before, after in pairwise(pictures):
        assert not np.array_equal(before, after)
    for labels in (True, False):
        cold, hot = (seen(SPEC, WALK[:n], labels=labels)[-1] for n in (3, 4))
        changed = np.argwhere((cold != hot).any(-1))
        assert len(changed) > 20, "the egg in the hand is marked hot"
        assert changed[:, 0].min() > 236, "and nothing else changes"
    assert not np.array_equal(seen(SPEC, [], labels=False)[0], seen(SPEC, [], labels=True)[0])
    assert np.array_equal(
        seen(SPEC, ["go to shelf 1"], labels=False)[1][106:], seen(SPEC, ["go to shelf 1"], labels=True)[1][106:]
    ), "an empty shelf has its label at the top"


@pytest.mark.parametrize("size", [64, 128, 300, 512])
def test_sizes(size: int) -> None:
    for picture in seen(SPEC, WALK, image_size=size):
        assert picture.shape == (size, size, 3) and picture.dtype == np.uint8


def test_without_text_the_task_alone_is_told() -> None:
    env = make("alfworld", observation="image")
    assert env.reset(options={"spec": SPEC})[0]["text"] == "Your task is to: put a hot egg in shelf."
    assert [env.step(action)[0]["text"] for action in WALK] == [""] * 4
    both = make("alfworld", observation="both")
    plain = make("alfworld")
    assert both.reset(options={"spec": SPEC})[0]["text"] == plain.reset(options={"spec": SPEC})[0]
    for action in WALK:
        assert both.step(action)[0]["text"] == plain.step(action)[0]
    assert np.array_equal(env.step("look")[0]["image"], both.step("look")[0]["image"])


@pytest.mark.parametrize("text", [True, False])
def test_illustrated_episodes(tmp_path: Path, text: bool) -> None:
    (game,) = rollout([make("alfworld")], make_policy("alfworld", "expert"), [3])
    shown = illustrate(game, tmp_path, text=text)
    assert [turn.text for turn in shown.agent_turns] == [turn.text for turn in game.agent_turns]
    assert (shown.rewards, shown.ended, shown.metadata) == (game.rewards, game.ended, game.metadata)
    env = make("alfworld", observation="both" if text else "image")
    observation, _ = env.reset(options={"game": game.metadata["game"]})
    actions = iter(game.agent_turns)
    for turn in shown.turns:
        if turn.is_agent:
            observation = env.step(next(actions).text)[0]
            continue
        assert turn.text == observation["text"]
        (path,) = turn.images
        assert np.array_equal(np.asarray(Image.open(path)), observation["image"])
    files = sorted(tmp_path.iterdir())
    assert {file.suffix for file in files} == {".png"}
    written = [file.stat().st_mtime_ns for file in files]
    assert illustrate(game, tmp_path, text=text) == shown
    assert [file.stat().st_mtime_ns for file in sorted(tmp_path.iterdir())] == written, "same pictures are one file"
    with pytest.raises(DataError, match="no first observation"):
        illustrate(Trajectory(game.turns[1:]), tmp_path)


def test_crowded_rooms_and_unknown_things_are_drawn() -> None:
    crowd = copy.deepcopy(SPEC)
    crowd["objects"] += [
        {"name": f"gadget {i}", "type": "gadget", "in": "shelf 1", "props": ["pickupable"]} for i in range(1, 61)
    ]
    crowd["receptacles"] += [
        {"name": f"portal {i}", "type": "portal", "location": 1, "openable": True, "open": False} for i in (1, 2, 4, 9)
    ]
    walk = ["go to shelf 1", "look", "open portal 4", "go to microwave 1"]
    assert len({picture.tobytes() for picture in seen(crowd, walk)}) == 5


def test_a_room_is_drawn_anew_for_another_game() -> None:
    painter = Painter()
    views = [View(make("alfworld").reset(seed=seed)[0]) for seed in (0, 1, 0)]
    first, second, third = (painter.pixels(view) for view in views)
    assert np.array_equal(first, third) and not np.array_equal(first, second)
    first[:] = 0
    assert not np.array_equal(painter.pixels(views[0]), first), "pixels are the caller's own"


def test_pillow_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert make("alfworld").reset(seed=0)
    with pytest.raises(ConfigError, match="pip install pillow"):
        make("alfworld", observation="image")
