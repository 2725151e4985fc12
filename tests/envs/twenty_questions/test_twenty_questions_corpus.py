"""Texts to pretrain on: every statement is true, every kind comes up, and nothing is a game."""

from __future__ import annotations

import re
from itertools import islice

import pytest

from qsft.envs import make
from qsft.envs.twenty_questions.corpus import STATEMENTS_A_TEXT, about, corpus
from qsft.envs.twenty_questions.env import objects_world
from qsft.errors import ConfigError


def test_about() -> None:
    assert about("Does it have fur?", "a cat") == "Does a cat have fur?"
    assert about("Is the object a toy?", "a cat") == "Is a cat a toy?"
    assert about("Are its colors black and white?", "a cat") == "Are a cat's colors black and white?"
    assert about("Does it get smaller as you use it?", "soap") == "Does soap get smaller as you use it?"


def statements(texts: int) -> list[str]:
    lines = [text.turns[0].text for text in corpus(texts, seed=1)]
    assert all(line.endswith("\n") and line.count("\n") == 1 for line in lines)
    found = re.findall(r"[^.?]+(?:\?(?: (?:Yes|No)\.)?|\.)", "".join(lines).replace("\n", " "))
    assert len(found) == STATEMENTS_A_TEXT * texts
    return [statement.strip() for statement in found]


def test_every_statement_is_true() -> None:
    world = objects_world()
    answers: dict[str, set[str]] = {}
    for number, question in enumerate(world.questions):
        for form in question.forms:
            for item, thing in enumerate(world.items):
                for phrase in thing.phrases:
                    answers.setdefault(about(form, phrase), set()).add(question.replies[world.outcomes[number, item]])
    counts = dict.fromkeys(("Yes.", "No.", "question", "category", "names"), 0)
    for statement in statements(300):
        question, answer = re.fullmatch(r"(.*\?) ?(Yes\.|No\.)?|.*\.", statement).groups()  # type: ignore[union-attr]
        if answer:
            assert answers[question] == {answer}
            counts[answer] += 1
        elif question:
            assert world.move_of(question) is not None, "as it is asked in the game"
            counts["question"] += 1
        elif names := re.fullmatch(r"Another name for (.*) is (.*)\.", statement):
            assert any({*names.groups()} <= {*item.phrases} for item in world.items)
            counts["names"] += 1
        else:
            assert re.fullmatch(r"[A-Z].* belongs to the [a-z ]+\.", statement)
            counts["category"] += 1
    assert counts["Yes."] == pytest.approx(450, abs=75) and counts["No."] == pytest.approx(450, abs=75)
    assert all(counts[kind] == pytest.approx(300, abs=65) for kind in ("question", "category", "names"))


def test_the_first_texts_are_the_same_and_others_are_not() -> None:
    assert list(corpus(3, seed=4)) == list(islice(corpus(9, seed=4), 3)) != list(corpus(3, seed=5))
    (text,) = make("twenty-questions").corpus(1)
    assert text.rewards == [0.0] and text.ended == "terminated" and len(text.turns) == 1


def test_other_environments_have_none() -> None:
    with pytest.raises(ConfigError, match="wordle: has no texts to pretrain on"):
        make("wordle").corpus(1)
