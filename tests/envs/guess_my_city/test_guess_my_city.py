"""Guess My City: its table, its rules, its players."""

from __future__ import annotations

import csv
import math
import re
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qsft.envs import make, make_policy, scripted_policies, symbols
from qsft.envs.collect import collect
from qsft.envs.guess_my_city import GuessMyCity, cities_world
from qsft.envs.guess_my_city.policies import CityPopulationPolicy
from qsft.envs.rollout import derive_seed, rollout
from qsft.envs.twenty_questions import clean_question, names_item
from qsft.envs.twenty_questions.collect import QuestionPlayer
from qsft.errors import ConfigError
from tests.pages import python_blocks

WORLD = cities_world()
ROWS = list(
    csv.DictReader(
        files("qsft.envs.guess_my_city").joinpath("cities.tsv").read_text(encoding="utf-8").splitlines(), delimiter="\t"
    )
)
HAVE = {
    question.attribute: {
        item.names[0] for item, reply in zip(WORLD.items, WORLD.outcomes[number], strict=True) if reply == 1
    }
    for number, question in enumerate(WORLD.questions)
    if question.replies == ("No.", "Yes.")
}
STARTS = GuessMyCity.starts


def test_table() -> None:
    assert len(WORLD.items) == len(ROWS) == 96
    assert len(HAVE) >= 60
    asked = WORLD.outcomes[: len(WORLD.questions)]
    for a, b in combinations(range(96), 2):
        assert (asked[:, a] != asked[:, b]).any(), (WORLD.items[a].names[0], WORLD.items[b].names[0])
    for (a, have_a), (b, have_b) in combinations(HAVE.items(), 2):
        assert have_a != have_b, f"{a} and {b} ask the same"
    assert all(0 < len(having) < 96 for having in HAVE.values())


def where(column: str, value: str) -> set[str]:
    return {row["names"].split(";")[0] for row in ROWS if row[column] == value}


def test_what_follows_from_what() -> None:
    for continent, attribute in (("Europe", "in-europe"), ("Asia", "in-asia"), ("Africa", "in-africa")):
        assert HAVE[attribute] == where("continent", continent)
    assert HAVE["in-america"] == where("continent", "North America") | where("continent", "South America")
    assert where("continent", "Oceania") <= HAVE["south"] & HAVE["monarchy"] & HAVE["left"] & HAVE["english"]
    assert HAVE["euro"] < HAVE["eu"] < HAVE["in-europe"]
    assert HAVE["kangaroos"] == where("country", "Australia")
    assert not HAVE["euro"] & HAVE["dollar"]
    assert not HAVE["huge"] & HAVE["small"]
    assert not HAVE["by-the-sea"] & (HAVE["lake"] | HAVE["high"])
    assert not HAVE["snow"] & HAVE["equator"]
    assert HAVE["iron-curtain"] < HAVE["in-europe"]
    assert HAVE["high"] < HAVE["mountains"]
    assert HAVE["south"] & HAVE["in-europe"] == set()
    assert HAVE["far-north"] < HAVE["in-europe"]
    for attribute in ("english", "spanish", "arabic", "french", "german"):
        for other in {"english", "spanish", "arabic", "french", "german"} - {attribute}:
            assert not HAVE[attribute] & HAVE[other]
    for country in {row["country"] for row in ROWS}:
        cities = where("country", country) - {"Hong Kong"}  # which has its own money and side of the road
        # These are true of countries.
        for attribute in ("euro", "dollar", "eu", "left", "monarchy", "island-country", "kangaroos"):
            assert HAVE[attribute] >= cities or not HAVE[attribute] & cities, (country, attribute)
        assert len(HAVE["capital"] & cities) <= 1, country
        assert len({row["continent"] for row in ROWS if row["country"] == country}) == 1


@pytest.mark.parametrize(
    ("city", "yes", "no"),
    [
        ("Paris", "capital euro tower fashion museums olympics huge", "monarchy left by-the-sea south"),
        ("Sydney", "opera beach bridge by-the-sea dollar kangaroos", "capital euro snow small"),
        ("Quito", "capital high dollar equator south spanish", "by-the-sea snow huge olympics"),
        ("Venice", "canals carnival bridge small by-the-sea", "capital olympics snow desert"),
        ("Tokyo", "capital huge earthquakes left monarchy", "euro english south desert"),
        ("Cairo", "capital desert ruins huge arabic in-africa", "in-asia olympics left snow"),
    ],
)
def test_some_cities(city: str, yes: str, no: str) -> None:
    assert all(city in HAVE[attribute] for attribute in yes.split())
    assert not any(city in HAVE[attribute] for attribute in no.split())


def test_a_game() -> None:
    env = make("guess-my-city")
    assert env.reset(options={"city": "paris"}) == ("Questions:\n", {})
    said = [
        ("What continent is your city on?\n", "It is in Europe.\n"),
        ("which continent do you live on", "It is in Europe.\n"),
        ("What is the weather like in your city?\n", "It is mild all year.\n"),
        ("Is your city a capital?\n", "Yes.\n"),
        ("Was it once ruled by Britain?\n", "No.\n"),
        ("Are you from London?\n", "No.\n"),
        ("Why Paris?\n", "No.\n"),
        ("Where is Paris?\n", "No.\n"),
    ]
    for action, answer in said:
        assert env.step(action) == (answer, -1.0, False, False, {})
    assert env.step("Are you from Paris, France?\n") == (
        "Yes.\n",
        0.0,
        True,
        False,
        {"success": True, "city": "Paris"},
    )


def test_every_guess_wins_its_city_and_no_question_is_one_by_accident() -> None:
    env = make("guess-my-city")
    for number, (item, row) in enumerate(zip(WORLD.items, ROWS, strict=True)):
        move = len(WORLD.questions) + number
        for text in (
            *WORLD.forms(move),
            f"Is it {item.names[-1]}?",
            f"Are you from {item.names[0]}, {row['country']}?",
        ):
            assert clean_question(text, STARTS) == text
            env.reset(options={"city": item.names[0]})
            assert env.step(text + "\n")[:3] == ("Yes.\n", 0.0, True), text
            env.reset(options={"city": WORLD.items[(number + 1) % 96].names[0]})
            assert env.step(text + "\n")[:3] == ("No.\n", -1.0, False)
    for number, question in enumerate(WORLD.questions):
        for text in question.forms:
            assert clean_question(text, STARTS) == text
            assert WORLD.move_of(text) == number
            assert not any(names_item(text, item.names, None) for item in WORLD.items), text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"city": "Pariss"}, "city 'Pariss' is none of the 96 that there are; did you mean paris"),
        ({"city": ["Paris"]}, "is none of the 96"),
        ({"object": "cat"}, "unknown reset option 'object'; known: city"),
    ],
)
def test_bad_reset_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make("guess-my-city").reset(options=options)
    assert "\n" not in str(caught.value)


def test_bad_oracle() -> None:
    with pytest.raises(ConfigError, match="guess-my-city: oracle='gpt' is none"):
        make("guess-my-city", oracle="gpt")


@pytest.mark.parametrize(
    ("name", "mean", "won"),
    [("random", -18.72, 0.117), ("population", -17.3, 0.31), ("greedy-information", -4.03, 1.0)],
)
def test_mean_return(name: str, mean: float, won: float) -> None:
    assert name in scripted_policies("guess-my-city")
    games = list(collect("guess-my-city", name, 8192, seed=1))
    returns = np.array([game.total_return for game in games])
    assert abs(returns.mean() - mean) < max(4 * returns.std() / math.sqrt(8192), 0.01) < 0.3
    assert abs(np.mean([game.metadata["success"] for game in games]) - won) < 0.025


def test_fast_games_are_the_games_turn_by_turn() -> None:
    for name in scripted_policies("guess-my-city"):
        env = make("guess-my-city")
        policy = make_policy("guess-my-city", name)
        player = env.block_player(policy)
        assert isinstance(player, QuestionPlayer)
        player.size = 40
        fast = player.play(5, 1)
        policy.seed(derive_seed(5, 1, 1))
        pinned = [{"city": game.metadata["city"]} for game in fast]
        assert rollout([make("guess-my-city") for _ in fast], policy, [0] * 40, pinned) == fast


def test_open_questions_are_worth_asking() -> None:
    greedy = make_policy("guess-my-city", "greedy-information")
    first = {turn.text for game in collect("guess-my-city", greedy, 200) for turn in list(game.agent_turns)[:1]}
    assert first <= {"What continent is your city on?\n", "Which continent do you live on?\n"}


def test_symbols_cover_all_games() -> None:
    known = symbols("guess-my-city")
    assert len(known) == len(set(known)) < 800
    used = set()
    for game in collect("guess-my-city", "population", 1024, seed=2):
        for turn in game.turns:
            used.update(re.findall(r"\n|[^ \n]+", turn.text))
    assert used <= set(known)
    assert len(used) > 0.95 * len(known)
    whole = set(symbols("guess-my-city", whole_actions=True))
    assert all(turn.text.removesuffix("\n") in whole for turn in game.agent_turns)


def test_shares_sum_to_one() -> None:
    assert math.isclose(sum(kind.share for kind in CityPopulationPolicy.PLAYERS), 1)


def test_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[3] / "docs/environments/guess-my-city.md"
    namespace: dict = {}
    for block in python_blocks(page):
        exec(block, namespace)
    assert len((tmp_path / "games.jsonl").read_text().splitlines()) == 1000
