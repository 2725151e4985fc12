"""The environment: turns, rewards, reset options, bad input."""

from __future__ import annotations

import re
from typing import Any

import pytest

from qsft.data.trajectory import Trajectory, Turn
from qsft.envs import EpisodeError, make, make_policy, symbols
from qsft.envs.collect import collect
from qsft.envs.twenty_questions import ModelOracle, objects_world
from qsft.errors import ConfigError


def test_a_game_that_is_won() -> None:
    env = make("twenty-questions")
    assert env.reset(options={"object": "cat"}) == ("Questions:\n", {})
    said = [
        ("Is it an animal?\n", "Yes.\n", -1.0),
        ("Is the object a bird?\n", "No.\n", -1.0),
        ("Is it a dog?\n", "No.\n", -1.0),
        ("Is it a dog or a cat?\n", "No.\n", -1.0),
        ("Does it purr?\n", "No.\n", -1.0),
        ("meow\n", "No.\n", -1.0),
        ("does it have fur\n", "Yes.\n", -1.0),
    ]
    for action, answer, reward in said:
        assert env.step(action) == (answer, reward, False, False, {})
    assert env.step("Is it a cat?\n") == ("Yes.\n", 0.0, True, False, {"success": True, "object": "cat"})
    with pytest.raises(EpisodeError, match="reset"):
        env.step("Is it a cat?\n")


def test_the_twentieth_question_is_the_last() -> None:
    env = make("twenty-questions")
    for last, success in (("Is it a dog?\n", False), ("Is it a cat?\n", True)):
        env.reset(options={"object": "cat"})
        for _ in range(19):
            assert env.step("Is it alive?\n")[2:] == (False, False, {})
        _, reward, terminated, truncated, info = env.step(last)
        assert (reward, terminated, truncated) == (0.0 if success else -1.0, True, False)
        assert info == {"success": success, "object": "cat"}


def test_reset_by_any_name_and_reproducibly() -> None:
    env = make("twenty-questions")
    for name in ("couch", "Sofa", "SOFA"):
        env.reset(options={"object": name})
        env.step("Is it a sofa?")
        assert not env._playing
    drawn = []
    for seed in [*range(40), *range(40)]:
        env.reset(seed=seed)
        drawn.append(env._item.names[0])
    assert drawn[:40] == drawn[40:]
    assert len(set(drawn)) > 25


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"object": "cot"}, "object 'cot' is none of the 158 that there are; did you mean .*co"),
        ({"object": "zzzzzzzz"}, "object 'zzzzzzzz' is none of the 158 that there are$"),
        ({"object": 3}, "object 3 is none"),
        ({"city": "Paris"}, "unknown reset option 'city'; known: object"),
    ],
)
def test_bad_reset_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make("twenty-questions").reset(options=options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"oracle": "parrot"}, "oracle='parrot' is none; give 'table'"),
        ({"oracle": 3}, "oracle=3 is none"),
        ({"oracle": {"model": "m"}}, "give base_url, model"),
        ({"oracle": {"base_url": "http://x", "model": "m", "tmeout": 3}}, "give base_url, model"),
        ({"oracle": {"base_url": "x", "model": "m"}}, "base_url='x' is no http address"),
        ({"oracle": {"base_url": "http://x", "model": "m", "retries": -1}}, "retries=-1"),
        ({"oracle": {"base_url": "http://x", "model": "m", "api_key_env": "QSFT_NO_KEY"}}, "QSFT_NO_KEY is not set"),
        ({"objects": ["Cat"]}, "the table knows its own objects only"),
        ({"objects": [], "oracle": lambda n, q: "No."}, "objects is empty"),
        ({"objects": ["Cat", "Dog;"], "oracle": lambda n, q: "No."}, "row 2: 'Dog;' is no"),
        ({"objects": [3], "oracle": lambda n, q: "No."}, "row 1: 3 is no"),
        ({"objects": "Radish", "oracle": lambda n, q: "No."}, "objects='Radish' is a text; give a list"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make("twenty-questions", **options)
    assert "\n" not in str(caught.value)


def test_actions_that_are_no_text() -> None:
    env = make("twenty-questions")
    env.reset(seed=0)
    with pytest.raises(EpisodeError, match="an action is a str"):
        env.step(3)


def test_own_objects_with_an_oracle() -> None:
    asked = []

    def oracle(names: Any, question: str) -> str:
        asked.append((tuple(names), question))
        return "Yes."

    env = make("twenty-questions", objects=["Sundial;Sun clock", "Radish"], oracle=oracle)
    env.reset(options={"object": "sun clock"})
    # Nouns are the objects' words and those of our own questions; "wug" is none, "animal" is one.
    for question, reward in (("Is it an animal?", -1.0), ("Is it an animal sundial?", -1.0), ("Is it a wug?", -1.0)):
        assert env.step(question)[:3] == ("Yes.\n", reward, False)
    assert env.step("It is a sundial")[:3] == ("No.\n", -1.0, False), "malformed: nobody is asked"
    assert env.step("Is it a wug sundial?")[:3] == ("Yes.\n", 0.0, True)
    assert [question for _, question in asked] == [
        "Is it an animal?",
        "Is it an animal sundial?",
        "Is it a wug?",
        "Is it a wug sundial?",
    ]
    with pytest.raises(ConfigError, match="no closed set"):
        env.symbols()
    with pytest.raises(ConfigError, match="knows the table's objects only"):
        make_policy("twenty-questions", "random", env_options={"objects": ["Radish"], "oracle": oracle})


def test_model_oracle_reads_replies_and_remembers(caplog) -> None:
    replies = {"Is it alive?": " YES, it is.", "Is it old?": "Nope", "Is it big?": "Yesterday.", "Is it flat?": "no"}
    prompts = []

    def complete(prompt: str) -> str:
        prompts.append(prompt)
        return next(reply for question, reply in replies.items() if question in prompt)

    oracle = ModelOracle(complete)
    asked = [oracle(["cat", "kitty"], question) for question in replies]
    assert asked == ["Yes.", "No.", "No.", "No."]
    assert asked == [oracle(["cat", "kitty"], question) for question in replies]
    assert len(prompts) == 4
    assert all("cat (also called kitty)" in prompt for prompt in prompts)
    assert [record.args for record in caplog.records] == [("Nope", "Is it old?")], "told once, and only what is unclear"


def pieces(text: str) -> list[str]:
    """What a word-level tokenizer sees: runs without blanks, newlines by themselves."""
    return re.findall(r"\n|[^ \n]+", text)


@pytest.mark.parametrize("policy", ["random", "population"])
def test_symbols_cover_all_games_and_texts_join_again(policy: str) -> None:
    known = symbols("twenty-questions")
    assert len(known) == len(set(known)) < 1000
    used = set()
    for game in collect("twenty-questions", policy, 1024, seed=5):
        for turn in game.turns:
            assert " ".join(pieces(turn.text)).replace(" \n", "\n") == turn.text
            used.update(pieces(turn.text))
    assert used <= set(known)
    assert len(used) > 0.95 * len(known), "no symbol is there for nothing"


def test_whole_actions_are_symbols() -> None:
    known = symbols("twenty-questions", whole_actions=True)
    assert len(known) == len(set(known))
    for game in collect("twenty-questions", "population", 100, seed=5):
        assert all(turn.text.removesuffix("\n") in known for turn in game.agent_turns)
    assert {"Questions:", "\n", "Yes.", "No."} < set(known)


def test_a_model_as_oracle_changes_no_rule() -> None:
    world = objects_world()
    table = make("twenty-questions").oracle

    def model(prompt: str) -> str:
        name = re.search(r"object is: (.*)\n", prompt)[1].split(" (also")[0]
        return table([name], re.search(r"Question: (.*)\n", prompt)[1]).lower()

    policy = make_policy("twenty-questions", "population", seed=2)
    env, other = make("twenty-questions", oracle=ModelOracle(model)), make("twenty-questions")
    for item in world.items[::40]:
        history = Trajectory([Turn("user", env.reset(options={"object": item.names[0]})[0])])
        other.reset(options={"object": item.names[0]})
        over = False
        while not over:
            action = policy.act([history])[0]
            step = env.step(action)
            assert step == other.step(action)
            history.turns += [Turn("assistant", action, step[1]), Turn("user", step[0])]
            over = step[2]
