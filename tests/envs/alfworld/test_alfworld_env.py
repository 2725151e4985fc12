"""The environment: texts, endings, options, pins, bad input, and gymnasium's conventions."""

from __future__ import annotations

import copy
import json
import time
import warnings
from typing import Any

import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from qsft.envs import EpisodeError, make, make_policy, symbols
from qsft.envs.alfworld import ALFWorld, Spec
from qsft.envs.alfworld.images import ALFWorldImage
from qsft.envs.alfworld.spec import TASK_TYPES
from qsft.envs.collect import collect
from qsft.errors import ConfigError
from qsft.models.scratch import word_level_tokenizer

SPEC: dict[str, Any] = {
    "task_type": "pick_heat_then_place_in_recep",
    "goal_text": "put a hot egg in shelf",
    "goal": {"object_type": "egg", "receptacle_type": "shelf", "toggle_type": None, "count": 1},
    "receptacles": [
        {"name": "microwave 1", "type": "microwave", "location": 3, "openable": True, "open": False},
        {"name": "shelf 2", "type": "shelf", "location": 1, "openable": False, "open": False},
        {"name": "shelf 1", "type": "shelf", "location": 1, "openable": False, "open": False},
    ],
    "objects": [
        {"name": "egg 1", "type": "egg", "in": "microwave 1", "props": ["pickupable", "heatable", "sliceable"]},
        {"name": "knife 1", "type": "knife", "in": "shelf 2", "props": ["pickupable"]},
    ],
    "can_contain": {"shelf": ["egg"], "microwave": ["egg"]},
}


def test_a_won_game_in_the_older_wording() -> None:
    env = make("alfworld", wording="put")
    first, info = env.reset(options={"spec": SPEC})
    assert first == (
        "-= Welcome to TextWorld, ALFRED! =-\n\n"
        "You are in the middle of a room. Looking quickly around you, you see a microwave 1, a shelf 2, and a shelf 1."
        "\n\nYour task is to: put a hot egg in shelf."
    )
    assert info == {"admissible_commands": ["go to microwave 1", "go to shelf 1", "go to shelf 2", "inventory", "look"]}
    script = [
        ("help", "Nothing happens."),
        ("go to microwave 1\n", "You arrive at loc 3. The microwave 1 is closed."),
        ("open microwave 1", "You open the microwave 1. The microwave 1 is open. In it, you see a egg 1."),
        ("take egg 1 from microwave 1", "You pick up the egg 1 from the microwave 1."),
        ("close microwave 1", "You close the microwave 1."),
        ("put egg 1 in/on microwave 1", "Nothing happens."),
        ("heat egg 1 with microwave 1", "You heat the egg 1 using the microwave 1."),
        ("examine egg 1", "This is a hot egg 1."),
        ("go to shelf 2", "You arrive at loc 1. On the shelf 2, you see a knife 1."),
        ("look", "You are facing the shelf 2, and shelf 1. Next to it, you see nothing."),
        ("move egg 1 to shelf 1", "Nothing happens."),
    ]
    for action, answer in script:
        assert env.step(action)[:4] == (answer, 0.0, False, False)
    observation, reward, terminated, truncated, info = env.step("put egg 1 in/on shelf 1")
    assert observation == "You put the egg 1 in/on the shelf 1."
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert (info["success"], info["game"], info["spec"]) == (True, None, SPEC)


def test_food_is_sliced_behind_a_closed_door_as_in_the_original() -> None:
    env = make("alfworld")
    spec = copy.deepcopy(SPEC)
    spec["receptacles"][0]["location"] = 1
    env.reset(options={"spec": spec})
    env.step("go to shelf 2")
    info = env.step("take knife 1 from shelf 2")[4]
    assert "slice egg 1 with knife 1" in info["admissible_commands"]
    assert "examine egg 1" not in info["admissible_commands"]
    assert env.step("slice egg 1 with knife 1")[0] == "You sliced the egg 1 with the knife 1."


def test_the_limit_cuts_an_episode() -> None:
    env = make("alfworld", max_steps=3)
    env.reset(options={"spec": SPEC})
    assert [env.step("look")[1:4] for _ in range(3)] == [(0.0, False, False)] * 2 + [(0.0, False, True)]
    with pytest.raises(EpisodeError, match="reset"):
        env.step("look")
    assert make("alfworld").max_turns == 50


@pytest.mark.parametrize(
    "action",
    ["", " ", "LOOK", "lоok", "go to shelf 3", "go  to shelf 1", "take egg 1", "\x00", "\ud800", "🥚", "look\nlook"],
)
def test_anything_else_does_nothing(action: str) -> None:
    env = make("alfworld")
    _, info = env.reset(options={"spec": SPEC})
    assert env.step(action) == ("Nothing happens.", 0.0, False, False, info)
    assert env.step(action * 100_000)[0] == "Nothing happens."


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"game": "train/look/1"}, "'train/look/1' is no name of a game"),
        ({"game": "test/look_at_obj_in_light/1"}, "no name of a game"),
        ({"game": "train/look_at_obj_in_light/-1"}, "no name of a game"),
        ({"game": "train/look_at_obj_in_light/01"}, "no name of a game"),
        ({"game": "train/look_at_obj_in_light/²"}, "no name of a game"),
        ({"game": "train/look_at_obj_in_light/1000000000"}, "no name of a game"),
        ({"game": "train/look_at_obj_in_light/" + "1" * 5000}, "no name of a game"),
        ({"game": 3}, "no name of a game"),
        ({"game": "train/look_at_obj_in_light/1", "spec": SPEC}, "give one of them"),
        ({"spec": []}, "no mapping"),
        ({"spec": {**SPEC, "task_type": "fly"}}, "task_type 'fly'"),
        ({"spec": {**SPEC, "goal_text": None}}, "goal_text is None; it must be of type str"),
        ({"spec": {**SPEC, "goal": {**SPEC["goal"], "count": True}}}, "count is True; it must be of type int"),
        ({"spec": {**SPEC, "goal": {**SPEC["goal"], "receptacle_type": None}}}, "receptacle_type is missing"),
        ({"spec": {**SPEC, "goal": {**SPEC["goal"], "count": 0}}}, "count is 0; it must be at least 1"),
        ({"spec": {**SPEC, "objects": SPEC["objects"] * 2}}, "'egg 1' stands there twice"),
        ({"spec": {**SPEC, "receptacles": SPEC["receptacles"][1:]}}, "in 'microwave 1', which is no receptacle"),
        ({"spec": {**SPEC, "can_contain": {"shelf": "egg"}}}, "give a list of object types"),
    ],
)
def test_a_bad_pin_is_one_line_and_starts_nothing(options: dict[str, Any], message: str) -> None:
    env = make("alfworld")
    env.reset(seed=0)
    with pytest.raises(ConfigError, match=message) as caught:
        env.reset(options=options)
    assert "\n" not in str(caught.value)
    with pytest.raises(EpisodeError):
        env.step("look")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "test"}, "split='test'"),
        ({"task_types": []}, "task_types"),
        ({"task_types": "look_at_obj_in_light"}, "give a list"),
        ({"task_types": ["look"]}, "task_types"),
        ({"max_steps": 0}, "max_steps=0"),
        ({"max_steps": 1.5}, "max_steps=1.5"),
        ({"wording": "take"}, "wording='take'"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    for name in ("alfworld", "alfworld-image"):
        with pytest.raises(ConfigError, match=message):
            make(name, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"text": "none"}, "text='none'; use one of full, withheld"), ({"image_size": 10}, "image_size=10")],
)
def test_bad_options_of_pictures(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make("alfworld-image", **options)


def test_task_types_and_splits_are_drawn_as_told() -> None:
    env = make("alfworld", split="seen", task_types=["pick_two_obj_and_place", "look_at_obj_in_light"], max_steps=1)
    drawn = []
    for seed in range(40):
        env.reset(seed=seed)
        drawn.append(env.step("look")[4]["game"].split("/"))
    assert {split for split, _, _ in drawn} == {"seen"}
    assert {kind for _, kind, _ in drawn} == {"pick_two_obj_and_place", "look_at_obj_in_light"}
    assert len({number for _, _, number in drawn}) == 40


def test_a_generated_game_is_the_same_by_name_by_seed_and_by_spec() -> None:
    env = make("alfworld", max_steps=1)
    first, _ = env.reset(seed=7)
    name = env.step("look")[4]["game"]
    pinned = {"game": name}
    assert env.reset(options=pinned)[0] == first
    assert make("alfworld", split="unseen").reset(seed=8, options=pinned)[0] == first
    spec = json.loads(json.dumps(env._game.spec.to_dict()))
    assert env.reset(options={"spec": spec})[0] == first
    assert Spec.from_dict(spec) == Spec.from_dict(Spec.from_dict(spec).to_dict())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 10**6), min_size=60, max_size=60))
def test_admissible_commands_are_those_that_do_something(seed: int, choices: list[int]) -> None:
    env = make("alfworld")
    observation, info = env.reset(seed=seed)
    for choice in choices:
        commands = info["admissible_commands"]
        assert commands == sorted(set(commands))
        observation, reward, terminated, truncated, info = env.step(commands[choice % len(commands)])
        assert observation != "Nothing happens."
        assert reward == float(terminated)
        if terminated or truncated:
            break
    assert truncated or terminated


@pytest.mark.parametrize("wording", ["move", "put"])
def test_symbols_are_all_that_is_said(wording: str) -> None:
    known = symbols("alfworld", wording=wording)
    assert len(known) == len(set(known)) < 400
    tokenizer = word_level_tokenizer(known)
    options = {"wording": wording, "split": "unseen"}
    for policy in ("population", "random"):
        for game in collect("alfworld", policy, 12, seed=1, env_options=options):
            for turn in game.turns:
                ids = tokenizer(turn.text)["input_ids"]
                assert tokenizer.unk_token_id not in ids, turn.text
                assert tokenizer.decode(ids) == turn.text
    env = make("alfworld", wording=wording)
    env.reset(seed=0)
    said = env.step("help")[0]
    assert tokenizer.decode(tokenizer(said)["input_ids"]) == said


@pytest.mark.parametrize("wording", ["move", "put"])
def test_whole_parts_of_commands(wording: str) -> None:
    tokenizer = word_level_tokenizer(symbols("alfworld", whole_actions=True, wording=wording))
    for game in collect("alfworld", "population", 30, seed=2, env_options={"wording": wording}):
        for turn in game.turns:
            ids = tokenizer(turn.text)["input_ids"]
            assert tokenizer.unk_token_id not in ids, turn.text
            assert tokenizer.decode(ids).replace(" ,", ",").replace(" .", ".") == turn.text
            if turn.is_agent:
                assert tokenizer.decode(ids) == turn.text
                assert len(ids) <= 5, "such as: take, egg 1, from, shelf 2, newline"
    assert tokenizer.tokenize("go to cabinet 10\n") == ["go to", "cabinet 10", "\n"], "not cabinet 1 and 0"


def test_gymnasium_accepts_it() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that there is no spec and that no render mode exists
        check_env(ALFWorld(), skip_render_check=True)
        check_env(ALFWorldImage(image_size=64), skip_render_check=True)


def test_each_type_of_task_is_scored_by_its_own_rule() -> None:
    """A game of each type, won by the expert; the step before the last has not won."""
    for task_type in TASK_TYPES:
        env = make("alfworld", task_types=[task_type])
        expert = make_policy("alfworld", "expert")
        for game in collect("alfworld", expert, 3, seed=4, env_options={"task_types": [task_type]}):
            assert game.rewards[-1] == 1.0 and sum(game.rewards) == 1.0
            actions = [turn.text.strip() for turn in game.agent_turns]
            needed = {"heat": "heat", "cool": "cool", "clean": "clean"}.get(task_type.split("_")[1])
            env.reset(options={"game": game.metadata["game"]})
            for action in actions:  # without the treatment the same walk does not win
                if needed is None or not action.startswith(needed):
                    won = env.step(action)[2]
            assert won is (needed is None)


@pytest.mark.parametrize(("name", "wanted"), [("alfworld", 5000), ("alfworld-image", 500)])
def test_speed(name: str, wanted: int) -> None:
    """Steps, or pictures, a second on one core; measured fifteen times and twice that. Processor time, so that other work
    on the machine counts little."""
    env = make(name)
    games = list(collect("alfworld", "population", 20))
    best = 0.0
    for _ in range(3):
        start, steps = time.process_time(), 0
        for game in games[: 20 if name == "alfworld" else 8]:
            env.reset(options={"game": game.metadata["game"]})
            for turn in game.agent_turns:
                env.step(turn.text)
                steps += 1
        best = max(best, steps / (time.process_time() - start))
    assert best > wanted, f"{best:.0f} a second"
