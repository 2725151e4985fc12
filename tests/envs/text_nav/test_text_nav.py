"""Text-Nav: what commands do, what is said, who plays how well."""

from __future__ import annotations

import math
import random
import re
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qsft.data.trajectory import Trajectory, Turn
from qsft.envs import EpisodeError, make, make_policy, scripted_policies, symbols
from qsft.envs.collect import Collection, collect
from qsft.envs.rollout import rollout
from qsft.envs.text_nav import TextNav
from qsft.envs.text_nav.house import EXITS, ROOMS, THINGS, House, every_command, way
from qsft.envs.text_nav.policies import PopulationPolicy, best_command
from qsft.envs.text_nav.texts import first_observation
from qsft.errors import ConfigError, DataError
from qsft.policies.base import Policy
from tests.pages import python_blocks

POLICIES = ["mixture", "optimal", "population", "random"]


def test_an_episode_that_succeeds() -> None:
    env = make("text-nav")
    text, info = env.reset(options={"position": "office"})
    assert info == {}
    assert text == (
        "Your objective is to put the stale food on the table in the living room into the fridge in the kitchen.\n"
        "You are in the office. You carry nothing. There is a closed chest. There are exits to the east and north.\n"
        "Admissible commands: go east | go north | open chest\n"
    )
    assert env.step("open chest\n")[0] == (
        "You open the chest. In it you see some utensils.\n"
        "You are in the office. You carry nothing.\n"
        "Admissible commands: close chest | go east | go north | take utensils from chest\n"
    )
    assert env.step("go north\n")[0] == (
        "You are in the living room. You carry nothing. There is a table with some fresh food and some stale food on it. "
        "There are exits to the east, south and west.\n"
        "Admissible commands: go east | go south | go west | take fresh food from table | take stale food from table\n"
    )
    assert env.step("take stale food from table\n")[0].startswith(
        "You take the stale food from the table.\nYou are in the living room. You carry some stale food.\n"
    )
    assert env.step("go nowhere\n") == (
        "You cannot do that.\nYou are in the living room. You carry some stale food.\n"
        "Admissible commands: drop stale food | eat stale food | go east | go south | go west | "
        "put stale food on table | take fresh food from table\n",
        0.0,
        False,
        False,
        {},
    )
    env.step("go west\n")
    assert " There is a closed fridge. " in env.step("go west\n")[0]
    assert env.step("open fridge\n")[0].startswith("You open the fridge. In it you see a fruit.\n")
    assert env.step("insert stale food into fridge\n")[:3] == (
        "You insert the stale food into the fridge.\nYou are in the kitchen. You carry nothing.\n"
        "Admissible commands: close fridge | go east | go north | go west | "
        "take fruit from fridge | take stale food from fridge\n",
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
        assert re.sub(r"You are in the [a-z ]+\. You carry [a-z ]+\.[ \n]", "", full) == partial
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
            assert len(way(start, end)) == len(way(end, start)) <= 5


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
@pytest.mark.parametrize("whole", [False, True], ids=["words", "whole actions"])
def test_symbols_are_the_pieces_of_all_texts(observation: str, whole: bool) -> None:
    known = symbols("text-nav", whole_actions=whole, observation=observation)
    assert len(known) == len(set(known))
    phrases = sorted((re.escape(symbol) for symbol in known if " " in symbol), key=len, reverse=True)
    assert bool(phrases) == whole
    pattern = re.compile("|".join([*phrases, r"\n", r"[^ \n]+"]))
    used: Counter[str] = Counter()
    for name in ("random", "population", "mixture"):
        for game in collect("text-nav", name, 320, seed=5, env_options={"observation": observation}):
            for turn in game.turns:
                pieces = pattern.findall(turn.text)
                assert " ".join(pieces).replace(" \n", "\n").replace("\n ", "\n") == turn.text, "nothing is lost"
                assert not (whole and turn.is_agent and len(pieces) > 2)
                used.update(pieces)
    assert set(used) <= set(known)
    unused = {symbol for symbol in known if symbol not in used and symbol not in every_command()}
    assert len(unused) < 8, "next to nothing that never comes"


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


def naive_play(find: tuple[float, float], bring: tuple[float, float], room: str, drawn: random.Random) -> bool:
    """One player's episode, told once more: the way by breadth-first search over rooms, the rest in words."""

    def distances(goal: str) -> dict[str, int]:
        found, queue = {goal: 0}, deque([goal])
        while queue:
            for there in EXITS[here := queue.popleft()].values():
                if there not in found:
                    found[there] = found[here] + 1
                    queue.append(there)
        return found

    house = House(room)
    for _ in range(15):
        place, where = house.treasure
        carrying = place in ("hand", "fridge")
        far = distances("kitchen" if carrying else where)
        right, astray = find if far[house.room] and not carrying else bring
        away = [f"go {d}" for d, there in EXITS[house.room].items() if far[there] > far[house.room]]
        point = drawn.random()
        if point < right:
            nearer = [f"go {d}" for d, there in EXITS[house.room].items() if far[there] < far[house.room]]
            takes = [command for command in house.commands() if command.startswith("take stale food")]
            opens = [f"open {place}"] if place == "chest" else takes
            ends = ["insert stale food into fridge" if "fridge" in house.open else "open fridge"]
            ends = ["close fridge"] if place == "fridge" else ends
            command = (nearer or (ends if carrying else takes or opens))[0]
        elif away and point < right + astray:
            command = drawn.choice(away)
        else:
            command = drawn.choice(house.commands())
        after = house.after(command)
        assert after is not None
        house = after
        if house.solved or house.failed:
            break
    return house.solved


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("random", [((0, 0), (0, 0))]),
        ("mixture", [((s, 0), (s, 0)) for s in (0.2, 0.5, 0.8)]),
        ("population", [((0.9, 0), (0, 0.9)), ((0, 0.9), (0.9, 0))]),
    ],
)
def test_who_plays_is_drawn_at_the_start(
    name: str, kinds: list[tuple[tuple[float, float], tuple[float, float]]]
) -> None:
    """The policy is told its players nowhere, and yet plays as if one had been drawn."""
    drawn = random.Random(1)
    naive = np.array([naive_play(*drawn.choice(kinds), drawn.choice(ROOMS), drawn) for _ in range(2400)])
    played = np.array([game.total_return for game in collect("text-nav", name, 2400, seed=1)])
    spread = math.sqrt((naive.var() + played.var()) / 2400)
    assert abs(naive.mean() - played.mean()) <= 4 * spread
    assert (played.mean() > 0.02) == (name != "random")


def test_the_data_leave_the_halves_to_be_joined() -> None:
    finder, bringer = PopulationPolicy.PLAYERS
    games = list(collect("text-nav", "population", 2000, seed=3))
    success = {
        room: np.mean([game.total_return for game in games if game.metadata["position"] == room]) for room in ROOMS
    }
    assert success["living room"] > 0.35, "what is to be done beside the food is in the data"
    assert max(success[room] for room in ("garden", "backyard", "kitchen", "dining room")) < 0.02
    assert max(rate for room, rate in success.items() if room != "living room") < 0.12
    for kind, most in ((finder, 0.02), (bringer, 0.2)):

        class Alone(PopulationPolicy):
            PLAYERS = (kind,)

        alone = [game.total_return for game in collect("text-nav", Alone(TextNav()), 480, seed=3)]
        assert np.mean(alone) < most
    right: Counter[House] = Counter()
    for game in games:
        house = House(game.metadata["position"])
        for turn in game.agent_turns:
            command = turn.text.strip()
            right[house] += command == best_command(house)
            after = house.after(command)
            assert after is not None
            house = after
    for room in ROOMS:
        house = House(room)
        while not house.solved:
            assert right[house] > 15, f"the step from {house} is in the data"
            after = house.after(best_command(house))
            assert after is not None
            house = after


def test_the_likelier_kind_goes_on_as_it_began() -> None:
    """Bayes' rule by hand: a finder's step, then a bringer's, and what may come next."""
    policy = make_policy("text-nav", "population", seed=0)
    env = make("text-nav")
    history = Trajectory([Turn("user", env.reset(options={"position": "bedroom"})[0])])
    for command in ("go west\n", "take stale food from table\n", "go nowhere\n"):
        history.turns += [Turn("assistant", command, 0.0), Turn("user", env.step(command)[0])]
    # bedroom: 3 commands, one exit leads away; living room: 5 commands, all three exits lead away
    finder, bringer = (0.9 + 0.1 / 3) * (0.1 / 5), (0.1 / 3) * (0.9 + 0.1 / 5)
    # now 7 commands; to the west is right, east and south lead away
    expected = (finder * 0.1 / 7 + bringer * (0.9 + 0.1 / 7)) / (finder + bringer)
    chosen = Counter(policy.act([history] * 4000))
    assert abs(chosen["go west\n"] / 4000 - expected) < 4 * math.sqrt(expected * (1 - expected) / 4000)
    assert chosen["go east\n"] > 20 < chosen["go south\n"]


def test_a_step_that_no_kind_takes_tells_nothing() -> None:
    """A policy can go on with somebody else's episode."""
    env = make("text-nav")
    history = Trajectory([Turn("user", env.reset(options={"position": "garden"})[0])])
    for command in ("go south\n", "go north\n", "dance\n"):
        history.turns += [Turn("assistant", command, 0.0), Turn("user", env.step(command)[0])]
    assert make_policy("text-nav", "optimal").act([history]) == ["go south\n"]


def test_interrupted_and_other_lengths_give_the_same_episodes() -> None:
    collection = Collection("text-nav", "population", seed=7)
    later = collection.block(2)
    assert Collection("text-nav", "population", seed=7).block(2) == later
    first = list(collect("text-nav", "population", 40, seed=7))
    assert first[32:] == later[:8]
    assert [game.metadata["episode"] for game in first] == list(range(40))


def test_speed() -> None:
    """At least 2,000 steps a second before writing; measured some ten times that, so that a busy machine passes."""
    collection = Collection("text-nav", "population")
    collection.block(0)
    start = time.process_time()
    steps = sum(len(game.rewards) for block in range(1, 21) for game in collection.block(block))
    assert steps / (time.process_time() - start) > 2000


def test_a_history_of_another_game_is_refused() -> None:
    policy = make_policy("text-nav", "optimal")
    for text in ("Questions:\n", first_observation("kitchen", "partial")):
        with pytest.raises(DataError, match="no episode begins with"):
            policy.act([Trajectory([Turn("user", text)])])


def test_seed_restarts_a_policy() -> None:
    history = Trajectory([Turn("user", first_observation("kitchen", "full"))])
    for name in ("random", "mixture", "population"):
        policy = make_policy("text-nav", name, seed=4)
        first = policy.act([history] * 20)
        assert policy.act([history] * 20) != first
        policy.seed(4)
        assert policy.act([history] * 20) == first


def test_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[3] / "docs/environments/text-nav.md"
    namespace: dict = {}
    for block in python_blocks(page):
        exec(block, namespace)
    assert len((tmp_path / "games.jsonl").read_text().splitlines()) == 200
