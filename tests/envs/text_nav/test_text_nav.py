"""Text-Nav: what commands do, what is said, who plays how well."""

from __future__ import annotations

import math
import random
import re
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qsft.data.trajectory import Trajectory, Turn
from qsft.envs import EpisodeError, make, make_policy, scripted_policies, symbols
from qsft.envs.collect import collect
from qsft.envs.rollout import rollout
from qsft.envs.text_nav.env import first_observation
from qsft.envs.text_nav.house import EXITS, ROOMS, THINGS, House, every_command, way
from qsft.envs.text_nav.policies import PopulationPolicy
from qsft.errors import ConfigError, DataError
from qsft.policies.base import Policy

POLICIES = ["optimal", "population", "random"]


def test_an_episode_that_succeeds() -> None:
    env = make("text-nav")
    text, info = env.reset(options={"position": "office"})
    assert info == {}
    assert text == (
        "Your objective is to put the stale food on the table in the living room into the fridge in the kitchen.\n"
        "You are in the office. There is a closed chest. There are exits to the east and north.\n"
        "You carry nothing.\n"
        "Admissible commands: go east, go north, open chest\n"
    )
    assert env.step("open chest\n")[0] == (
        "You open the chest. In it you see some utensils.\n"
        "You carry nothing.\n"
        "Admissible commands: close chest, go east, go north, take utensils from chest\n"
    )
    assert env.step("go north\n")[0].startswith(
        "You are in the living room. There is a table with some fresh food and some stale food on it. "
        "There are exits to the east, south and west.\nYou carry nothing.\n"
    )
    assert env.step("take stale food from table\n")[0].startswith(
        "You take the stale food from the table.\nYou carry some stale food.\n"
    )
    assert env.step("go nowhere\n") == (
        "You cannot do that.\nYou carry some stale food.\nAdmissible commands: drop stale food, eat stale food, "
        "go east, go south, go west, put stale food on table, take fresh food from table\n",
        0.0,
        False,
        False,
        {},
    )
    env.step("go west\n")
    assert env.step("go west\n")[0].startswith("You are in the kitchen. There is a closed fridge.")
    assert env.step("open fridge\n")[0].startswith("You open the fridge. In it you see a fruit.\n")
    assert env.step("insert stale food into fridge\n")[:3] == (
        "You insert the stale food into the fridge.\nYou carry nothing.\nAdmissible commands: close fridge, go east, "
        "go north, go west, take fruit from fridge, take stale food from fridge\n",
        0.0,
        False,
    )
    assert env.step("close fridge\n") == (
        "You close the fridge. You have reached your objective.\n",
        1.0,
        True,
        False,
        {"success": True, "position": "office"},
    )
    with pytest.raises(EpisodeError, match="reset"):
        env.step("open fridge\n")


def test_partial_observation_names_neither_room_nor_hand() -> None:
    texts = {}
    for observation in ("full", "partial"):
        env = make("text-nav", observation=observation)
        texts[observation] = [env.reset(options={"position": "living room"})[0]]
        for action in ("take stale food from table\n", "go west\n", "drop stale food\n", "eat stale food\n"):
            texts[observation].append(env.step(action)[0])
    for full, partial in zip(texts["full"], texts["partial"], strict=True):
        assert re.sub(r"You are in the [a-z ]+\. |You carry .*\n", "", full) == partial
        assert "You carry" not in partial
    assert len({first_observation(room, "partial") for room in ROOMS}) == 8, "rooms can be told apart by their looks"


def test_eating_the_food_fails() -> None:
    env = make("text-nav")
    env.reset(options={"position": "living room"})
    env.step("take stale food from table\n")
    text, reward, terminated, truncated, info = env.step("eat stale food\n")
    assert (text, reward) == ("You eat the stale food. You have failed your objective.\n", 0.0)
    assert (terminated, truncated, info) == (True, False, {"success": False, "position": "living room"})


def test_the_fifteenth_turn_is_the_last() -> None:
    env = make("text-nav")
    env.reset(options={"position": "garden"})
    for _ in range(14):
        assert env.step("dance\n")[1:] == (0.0, False, False, {})
    assert env.step("dance\n")[1:] == (0.0, True, False, {"success": False, "position": "garden"})


def test_exits_lead_back() -> None:
    opposite = {"north": "south", "south": "north", "east": "west", "west": "east"}
    assert len(ROOMS) == 8
    for room, exits in EXITS.items():
        for direction, there in exits.items():
            assert EXITS[there][opposite[direction]] == room
    for start in ROOMS:
        for end in ROOMS:
            room = start
            for direction in way(start, end):
                room = EXITS[room][direction]
            assert room == end
            assert len(way(start, end)) == len(way(end, start)) <= 4


def test_random_walks_keep_the_house_in_order() -> None:
    """The rules told once more, on plain dictionaries, by what each command says."""
    drawn = random.Random(0)
    for _ in range(150):
        house = House(drawn.choice(ROOMS))
        where: dict[str, str] = {
            "stale food": "living room table",
            "fresh food": "living room table",
            "bowl": "bedroom table",
            "coffee cup": "dining room table",
            "plate": "dining room table",
            "utensils": "chest",
            "fruit": "fridge",
        }
        room, opened = house.room, {"chest": False, "fridge": False}
        for _ in range(40):
            commands = house.commands()
            assert list(commands) == sorted(set(commands))
            assert set(commands) <= set(every_command())
            here = {"office": "chest", "kitchen": "fridge"}.get(room, f"{room} table")
            usable = opened.get(here, room in ("bedroom", "living room", "dining room"))
            expected = {f"go {direction}" for direction in EXITS[room]}
            if here in opened:
                expected.add(f"close {here}" if opened[here] else f"open {here}")
            short = here.split()[-1]
            for thing, place in where.items():
                if place == room:
                    expected.add(f"take {thing}")
                elif place == here and usable:
                    expected.add(f"take {thing} from {short}")
                elif place == "hand":
                    expected.add(f"drop {thing}")
                    if usable:
                        expected.add(f"insert {thing} into {short}" if here in opened else f"put {thing} on {short}")
                    if thing in ("stale food", "fresh food", "fruit"):
                        expected.add(f"eat {thing}")
            assert set(commands) == expected
            assert house.after("go up") is None
            impossible = drawn.choice(every_command())
            assert (house.after(impossible) is None) == (impossible not in commands)
            command = drawn.choice(commands)
            after = house.after(command)
            assert after is not None
            verb, rest = command.split(" ", 1)
            if verb == "go":
                room = EXITS[room][rest]
            elif verb in ("open", "close"):
                opened[rest] = verb == "open"
            else:
                thing = next(thing for thing in where if rest.startswith(thing))
                where[thing] = {"take": "hand", "drop": room, "eat": "eaten", "put": here, "insert": here}[verb]
            house = after
            assert house.solved == (where["stale food"] == "fridge" and not opened["fridge"])
            assert house.failed == (where["stale food"] == "eaten")
            assert len(house.places) == len(THINGS) == 7


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ({"observation": "none"}, None, "use one of full, partial"),
        ({}, {"position": "attic"}, "position 'attic' is no room; use one of bedroom, living room"),
        ({}, {"position": ["kitchen"]}, "is no room"),
        ({}, {"room": "kitchen"}, "unknown reset option 'room'; known: position"),
    ],
)
def test_bad_input(arguments: dict[str, Any], options: dict[str, Any] | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make("text-nav", **arguments).reset(options=options)
    assert "\n" not in str(caught.value)


def test_starts() -> None:
    env = make("text-nav")
    assert {env.reset(seed=seed)[0] for seed in range(100)} == {first_observation(room, "full") for room in ROOMS}


@pytest.mark.parametrize("observation", ["full", "partial"])
def test_symbols_cover_all_episodes(observation: str) -> None:
    known = set(symbols("text-nav", observation=observation))
    whole = set(symbols("text-nav", whole_actions=True, observation=observation))
    assert len(known) < 250
    used = set()
    for game in collect("text-nav", "random", 320, env_options={"observation": observation}):
        for turn in game.turns:
            used.update(re.findall(r"\n|[^ \n]+", turn.text))
        assert all(turn.text.removesuffix("\n") in whole for turn in game.agent_turns)
    assert used <= known
    assert len(used) > 80
    assert {",", "take stale food from table"} < whole


def test_names_and_contract() -> None:
    assert scripted_policies("text-nav") == POLICIES
    for name in POLICIES:
        policy = make_policy("text-nav", name)
        assert isinstance(policy, Policy)
        assert policy.name == name
        assert policy.act([]) == []


def fewest_commands(room: str) -> int:
    """By breadth-first search over states of the house, distractors left alone."""
    start = House(room)
    seen, queue = {start}, deque([(start, 0)])
    while queue:
        house, steps = queue.popleft()
        for command in house.commands():
            if any(thing in command for thing in THINGS if thing != "stale food"):
                continue
            after = house.after(command)
            assert after is not None
            if after.solved:
                return steps + 1
            if after not in seen and not after.failed:
                seen.add(after)
                queue.append((after, steps + 1))
    raise AssertionError("there is no way")


@pytest.mark.parametrize("observation", ["full", "partial"])
def test_optimal_takes_the_fewest_turns(observation: str) -> None:
    options = {"observation": observation}
    games = rollout(
        [make("text-nav", **options) for _ in ROOMS],
        make_policy("text-nav", "optimal", env_options=options),
        [0] * 8,
        [{"position": room} for room in ROOMS],
    )
    for room, game in zip(ROOMS, games, strict=True):
        assert game.total_return == 1.0
        assert len(game.rewards) == fewest_commands(room) <= 9


@pytest.mark.parametrize(("name", "mean", "most"), [("random", 0.0005, 0.003), ("population", 0.122, 0.02)])
def test_mean_return(name: str, mean: float, most: float) -> None:
    returns = np.array([game.total_return for game in collect("text-nav", name, 1600, seed=1)])
    assert abs(returns.mean() - mean) < max(4 * returns.std() / math.sqrt(1600), most)


def test_no_kind_of_player_does_well_but_together_they_know_everything() -> None:
    half, other, forgetful = PopulationPolicy.STEADY
    assert set(half) | set(other) == set(ROOMS) == set(forgetful)
    assert not set(half) & set(other)
    for kind, most in ((half, 0.12), (other, 0.02), (forgetful, 0.45)):

        class Alone(PopulationPolicy):
            STEADY = (kind,)

        policy = Alone(make("text-nav"))
        games = list(collect("text-nav", policy, 320, seed=3))
        assert np.mean([game.total_return for game in games]) < most


def test_the_likelier_kind_goes_on_as_it_began() -> None:
    """Bayes' rule by hand: after three right steps in the half that one kind knows."""
    policy = make_policy("text-nav", "population")
    assert isinstance(policy, PopulationPolicy)
    house, earlier, likely = House("bathroom"), [], np.ones(3)
    for command in ("go north", "go west", "take stale food from table"):
        count = len(house.commands())
        right = (
            command == "take stale food from table"
            or command == {"bathroom": "go north", "bedroom": "go west"}[house.room]
        )
        likely *= [sure * right + (1 - sure) / count for sure in (0.9, 0.0, 0.5)]
        earlier.append((house, command))
        house = house.after(command)
    likely /= likely.sum()
    count = len(house.commands())
    expected = sum(share * (sure + (1 - sure) / count) for share, sure in zip(likely, (0.9, 0.0, 0.5), strict=True))
    chosen = [policy.choose(house, earlier) for _ in range(3000)]
    assert abs(chosen.count("go west") / 3000 - expected) < 0.04


def test_a_history_of_another_game_is_refused() -> None:
    policy = make_policy("text-nav", "optimal")
    for text in ("Questions:\n", first_observation("kitchen", "partial")):
        with pytest.raises(DataError, match="no episode begins with"):
            policy.act([Trajectory([Turn("user", text)])])


def test_seed_restarts_a_policy() -> None:
    history = Trajectory([Turn("user", first_observation("kitchen", "full"))])
    for name in ("random", "population"):
        policy = make_policy("text-nav", name, seed=4)
        first = policy.act([history] * 20)
        assert policy.act([history] * 20) != first
        policy.seed(4)
        assert policy.act([history] * 20) == first


def test_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[3] / "docs/environments/text-nav.md"
    namespace: dict = {}
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        exec(block, namespace)
    assert len((tmp_path / "games.jsonl").read_text().splitlines()) == 200
