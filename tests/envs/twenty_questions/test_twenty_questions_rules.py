"""The rules on texts: the original's golden vectors, and properties."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qsft.envs import make
from qsft.envs.twenty_questions import clean_question, names_item, tokens

GOLDEN = Path(__file__).parents[3] / "../shared/golden/twenty_questions.jsonl"


@pytest.fixture(scope="module")
def cases() -> list[dict[str, Any]]:
    if not GOLDEN.exists():
        pytest.skip("golden vectors of the original are not beside the repository")
    return [json.loads(line) for line in GOLDEN.read_text(encoding="utf-8").splitlines()]


def test_golden_episodes_are_reproduced_exactly(cases: list[dict[str, Any]]) -> None:
    assert len(cases) == 84
    objects = sorted({case["object"] for case in cases})
    steps = 0
    for case in cases:
        answers = iter(case["answer"])
        asked: list[tuple[list[str], str]] = []

        def oracle(names: Any, question: str, answers: Any = answers, asked: list = asked) -> str:
            asked.append((list(names), question))
            return next(answers)

        nouns_of = dict(zip(map(tuple, case["tokens"]), case["nouns"], strict=True))
        env = make(
            "twenty-questions", objects=objects, oracle=oracle, nouns=lambda words, known=nouns_of: known[tuple(words)]
        )
        observation, info = env.reset(seed=0, options={"object": case["variants"][0]})
        assert (observation, info) == (case["init"], {})
        played: dict[str, list] = {"obs": [], "reward": [], "done": []}
        for action in case["action"]:
            observation, reward, terminated, truncated, info = env.step(action)
            assert not truncated
            for key, value in zip(played, (observation, reward, terminated), strict=True):
                played[key].append(value)
            steps += 1
        assert played == {key: case[key] for key in played}, case["kind"]
        assert asked == [(case["variants"], action.strip()) for action in case["action"]]
        if played["done"][-1]:
            assert info == {"success": case["reward"][-1] == 0.0, "object": case["variants"][0]}
    assert steps == sum(len(case["action"]) for case in cases) > 150


def test_golden_clean_up_and_tokens(cases: list[dict[str, Any]]) -> None:
    malformed = 0
    for case in cases:
        for question, action, words in zip(case["question"], case["action"], case["tokens"], strict=True):
            cleaned = clean_question(question)
            malformed += cleaned is None
            # The original puts this question in the place of a malformed one.
            assert (cleaned or "Is this a valid question?") + "\n" == action
            assert tokens(action) == words
    assert malformed > 10


def test_golden_cases_that_hold_for_any_tagger(cases: list[dict[str, Any]]) -> None:
    """Where the tagger does not matter, the environment's own tagger gives the recorded rewards."""
    used = 0
    for case in cases:
        if case["tagger_dependent"]:
            continue
        answers = iter(case["answer"])
        env = make("twenty-questions", objects=[case["object"]], oracle=lambda n, q, answers=answers: next(answers))
        env.reset(seed=0)
        assert [env.step(action)[1] for action in case["action"]] == case["reward"], case["kind"]
        used += 1
    assert used == len([case for case in cases if not case["tagger_dependent"]]) > 50


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Is it a cat?\n", "Is it a cat?"),
        ("  is it a cat", "Is it a cat?"),
        ("Does it have fur, claws, etc.?", "Does it have fur, claws, etc.?"),
        ("Is it a cat.", None),
        ("", None),
        ("?", None),
        ("\n", None),
        ("Is", None),
        ("What is it?", None),
        ("It is a cat.", None),
        ("Is " + "very " * 39 + "big?", None),
        ("Is " + "very " * 38 + "big?", "Is " + "very " * 38 + "big?"),
    ],
)
def test_clean_question(text: str, expected: str | None) -> None:
    assert clean_question(text) == expected


@settings(deadline=None)
@given(st.text())
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    cleaned = clean_question(text)
    if cleaned is not None:
        assert clean_question(cleaned) == cleaned
        assert cleaned.endswith("?")
        assert cleaned.split(" ")[0] in ("Is", "Does", "Can", "Do", "Are", "Could")


@settings(deadline=None)
@given(st.text())
def test_tokens_never_hold_blanks_and_end_in_a_letter(text: str) -> None:
    found = tokens(text)
    assert all(token and not token.isspace() for token in found)
    assert not found or any(letter.isalpha() for letter in found[-1])


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("Is it a cat?", True),
        ("Is the object a kind of cat?", True),
        ("Is it something like a cat?!", True),
        ("Is it a house cat?", True),  # one of its names
        ("Is it a box of house cat?", True),  # counter words before "of" are free
        ("Is it a dog or a cat?", False),  # another noun
        ("Is it a cat or a dog?", False),
        ("Is it a cat or similar?", False),  # does not end in the name
        ("Is it a wildcat?", False),
        ("cat", True),
        ("", False),
    ],
)
def test_names_item(question: str, found: bool) -> None:
    nouns = {"cat", "dog", "house", "box", "object", "kind", "something", "wildcat"}
    assert names_item(question, ["Cat", "House cat"], nouns.intersection) is found
    if "dog" not in question:
        assert names_item(question, ["Cat", "House cat"], None) is found
