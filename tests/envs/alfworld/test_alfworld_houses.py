"""Generated houses and games: legal, of their split, always the same, and the tables agree with the original."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from qsft.envs.alfworld.facts import ROOMS, object_types, receptacle_types
from qsft.envs.alfworld.houses import (
    SPLITS,
    TRAINING_HOUSES,
    UNSEEN_HOUSES,
    game_name,
    generate,
    house,
)
from qsft.envs.alfworld.spec import TASK_TYPES, Spec
from tests.envs.alfworld.test_alfworld_golden import FILES, load

GAMES = [generate(game_name(split, kind, number)) for split in SPLITS for kind in TASK_TYPES for number in range(40)]


@pytest.mark.skipif(not FILES, reason="no golden vectors beside the checkout")
def test_tables_against_games_of_the_original() -> None:
    for path in FILES:
        spec = load(path)["spec"]
        for receptacle in spec["receptacles"]:
            assert receptacle_types()[receptacle["type"]].openable == receptacle["openable"]
        for thing in spec["objects"]:
            assert object_types()[thing["type"]].props == set(thing["props"]), thing["type"]
        present = {thing["type"] for thing in spec["objects"] if "pickupable" in thing["props"]}
        for receptacle_type, types in spec["can_contain"].items():
            ours = {name for name in present if receptacle_type in object_types()[name].places}
            assert ours == set(types), receptacle_type


def test_tables() -> None:
    assert list(object_types()) == sorted(object_types()), "the original lists objects in alphabetical order"
    assert list(receptacle_types()) == sorted(receptacle_types())
    for kind in object_types().values():
        assert kind.places <= receptacle_types().keys()
        assert kind.rooms.keys() <= set(ROOMS) and all(0 < chance <= 1 for chance in kind.rooms.values())
        assert "pickupable" in kind.props or kind.props == {"toggleable"}
    for place in receptacle_types().values():
        assert all(0 < chance <= 1 and 1 <= few <= many for chance, few, many in place.rooms.values())


@pytest.mark.parametrize("spec", GAMES[::7], ids=lambda spec: spec.goal_text)
def test_a_game_survives_json(spec: Spec) -> None:
    assert Spec.from_dict(spec.to_dict()) == spec


def test_every_game_is_legal_and_not_won_yet() -> None:
    for spec in GAMES:
        places = {receptacle.name: receptacle for receptacle in spec.receptacles}
        types = {receptacle.type for receptacle in spec.receptacles}
        locations = {receptacle.location for receptacle in spec.receptacles}
        assert locations == set(range(1, len(locations) + 1))
        assert not any(receptacle.open for receptacle in spec.receptacles)
        for thing in spec.things:
            assert places[thing.within].type in object_types()[thing.type].places
        wanted = [thing for thing in spec.things if thing.type == spec.object_type]
        assert len(wanted) >= spec.count == (2 if spec.task_type == "pick_two_obj_and_place" else 1)
        assert not any(places[thing.within].type == spec.receptacle_type for thing in wanted)
        if spec.task_type == "look_at_obj_in_light":
            assert any(thing.type == spec.toggle_type for thing in spec.things)
        else:
            assert spec.object_type in spec.can_contain[spec.receptacle_type or ""]
        for verb, appliance in (("clean", "sinkbasin"), ("heat", "microwave"), ("cool", "fridge")):
            if f"_{verb}_" in spec.task_type:
                assert appliance in types
                assert all(f"{verb}able" in thing.props for thing in wanted)
        numbers: dict[str, list[int]] = {}
        for name in (*places, *(thing.name for thing in spec.things)):
            kind, number = name.split()
            numbers.setdefault(kind, []).append(int(number))
        assert all(found == list(range(len(found), 0, -1)) for found in numbers.values())


def test_splits() -> None:
    def houses(split: str) -> set[tuple]:
        return {
            spec.receptacles
            for kind in TASK_TYPES
            for spec in (generate(game_name(split, kind, number)) for number in range(120))
        }

    train, seen, unseen = (houses(split) for split in SPLITS)
    training = {house(room, number).receptacles for room in ROOMS for number in range(TRAINING_HOUSES)}
    held_out = {
        house(room, number).receptacles
        for room in ROOMS
        for number in range(TRAINING_HOUSES, TRAINING_HOUSES + UNSEEN_HOUSES)
    }
    assert len(training) == 4 * TRAINING_HOUSES and len(held_out) == 4 * UNSEEN_HOUSES
    assert not training & held_out
    assert train <= training and seen <= training and unseen <= held_out
    assert len(unseen) == len(held_out), "every unseen house is used"


def test_games_differ_and_both_wordings_of_a_goal_occur() -> None:
    assert len({(spec.receptacles, spec.things) for spec in GAMES}) == len(GAMES)
    openings = Counter(spec.goal_text.split()[0] for spec in GAMES)
    assert {"put", "look", "examine", "clean", "heat", "cool", "find"} == openings.keys()
    assert len({spec.object_type for spec in GAMES}) > 35
    assert any(len({r.location for r in spec.receptacles}) < len(spec.receptacles) for spec in GAMES), "shared places"


def test_a_name_gives_the_same_game_in_every_process() -> None:
    name = "unseen/pick_two_obj_and_place/12345"
    program = f"from qsft.envs.alfworld.houses import generate; print(generate({name!r}).to_dict())"
    runs = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert runs == {f"{generate(name).to_dict()}\n"}
