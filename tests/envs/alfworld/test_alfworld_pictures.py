"""The pictures: they show what the texts told, and nothing more."""

from __future__ import annotations

import copy
import io
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from PIL import Image

from qsft.data.trajectory import Trajectory
from qsft.envs import make, make_policy
from qsft.envs.alfworld.facts import object_types, receptacle_types
from qsft.envs.alfworld.images import ALFWorldImage
from qsft.envs.alfworld.pictures import Painter, _written
from qsft.envs.alfworld.shapes import sprite, strokes
from qsft.envs.alfworld.view import View
from qsft.envs.collect import collect
from qsft.envs.rollout import rollout
from qsft.errors import ConfigError, DataError
from tests.envs.alfworld.test_alfworld_env import SPEC

WALK = ["go to microwave 1", "open microwave 1", "take egg 1 from microwave 1", "heat egg 1 with microwave 1"]


def image_env(**options: Any) -> ALFWorldImage:
    env = make("alfworld-image", **options)
    assert isinstance(env, ALFWorldImage)
    return env


def seen(spec: dict[str, Any], actions: list[str], **options: Any) -> list[np.ndarray]:
    """The pictures of a walk."""
    env = image_env(**options)
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


def test_texts() -> None:
    """In full they are those of the other environment, with the task behind each; withheld, the task is all."""
    task = "Your task is to: put a hot egg in shelf."
    withheld, full, plain = image_env(text="withheld"), image_env(), make("alfworld")
    first = plain.reset(options={"spec": SPEC})[0]
    assert first.endswith(task)
    assert full.reset(options={"spec": SPEC})[0]["text"] == first
    assert withheld.reset(options={"spec": SPEC})[0]["text"] == task
    for action in [*WALK, "Thought: let us see. Action: look", "nonsense"]:
        answer = plain.step(action)
        seen_text, *rest = full.step(action)
        assert seen_text["text"] == f"{answer[0]}\n{task}"
        assert rest == list(answer[1:])
        read = withheld.step(action)[0]
        assert read["text"] == task
        assert np.array_equal(read["image"], seen_text["image"])


def test_what_else_may_lie_where_something_was_put_is_left_open() -> None:
    """Beside shelf 2 one can put something on shelf 1 without having looked there."""
    env = make("alfworld")
    first, _ = env.reset(options={"spec": {**SPEC, "can_contain": {"shelf": ["egg", "knife"]}}})
    view = View(first)
    for action in ("go to shelf 2", "take knife 1 from shelf 2", "move knife 1 to shelf 1"):
        view.learn(action, env.step(action)[0])
    assert view.inside["shelf 1"] == ["knife 1"] and view.looked == {"shelf 2"}
    unseen = Painter(300).pixels(view)
    view.looked.add("shelf 1")
    changed = np.nonzero((unseen != Painter(300).pixels(view)).any(axis=2))
    assert changed[0].size and changed[0].min() >= 106 and changed[0].max() < 236
    view.looked.remove("shelf 1")
    view.learn("examine shelf 1", env.step("examine shelf 1")[0])
    assert view.looked == {"shelf 1", "shelf 2"} and view.inside["shelf 1"] == ["knife 1"]


def test_labels_stay_in_their_place_and_their_numbers_are_kept() -> None:
    for text in ("coffeemachine 1", "peppershaker 12", "cabinet 1-3", "stoveburner 1 4"):
        widths = []
        for width in range(80, 8, -1):
            label = _written(text, width, 15)
            if label is not None:
                assert label.width <= width
                widths.append(label.width)
        number = text.partition(" ")[2].replace(" ", ",")
        assert _written(text, widths[-1], 15).tobytes() == _written(f"x {number}", widths[-1], 15).tobytes()
        assert _written(text, 4, 15) is None


def test_blank_pictures_show_nothing() -> None:
    pictures = seen(SPEC, [*WALK, "nonsense"], blank=True)
    assert {picture.tobytes() for picture in pictures} == {bytes([128]) * 300 * 300 * 3}
    pictures[0][:] = 0
    assert image_env(blank=True).reset(seed=0)[0]["image"].min() == 128, "pixels are the caller's own"


@pytest.mark.parametrize("options", [{}, {"text": "withheld", "labels": False, "image_size": 64}, {"blank": True}])
def test_scripted_players_are_illustrated(options: dict[str, Any]) -> None:
    """What a scripted player's episode holds is what the environment shows to one who does the same."""
    env = image_env(**options)
    for policy in ("expert", "population"):
        for game in collect("alfworld-image", policy, 2, seed=1, env_options=options):
            observation, _ = env.reset(options={"game": game.metadata["game"]})
            for turn in game.turns:
                if turn.is_agent:
                    observation, reward, *_ = env.step(turn.text)
                    assert reward == turn.reward
                    continue
                assert turn.text == observation["text"]
                (picture,) = turn.images
                assert np.array_equal(np.asarray(Image.open(io.BytesIO(picture))), observation["image"])
            assert game.metadata["env"] == "alfworld-image"


def test_episodes_of_others_are_refused() -> None:
    (game,) = rollout([make("alfworld")], make_policy("alfworld", "expert"), [3])
    with pytest.raises(DataError, match="no first observation .* with the texts in full"):
        rollout([image_env(text="withheld")], make_policy("alfworld-image", "expert"), [3])
    with pytest.raises(DataError, match="no first observation"):
        image_env().illustrate(Trajectory(game.turns[1:]))


@pytest.mark.parametrize("action", ["", "\ud800", "🥚" * 100_000, "Thought: Action: Action:", "go to shelf 1\nlook"])
def test_any_text_is_answered_by_a_picture(action: str) -> None:
    env = image_env(image_size=64)
    env.reset(options={"spec": SPEC})
    plain = env.step("nonsense")[0]
    said = env.step(action)[0]
    assert said["text"].startswith("Nothing happens.\n")
    assert np.array_equal(said["image"], plain["image"])


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
        make("alfworld-image")
