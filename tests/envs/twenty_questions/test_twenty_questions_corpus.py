"""Riddles to pretrain on: every answer is true, yes comes up as often as no, and each ends in the item's name."""

from __future__ import annotations

from itertools import islice

import pytest

from qsft.envs import make
from qsft.envs.twenty_questions.corpus import MOST_QUESTIONS
from qsft.errors import ConfigError


@pytest.mark.parametrize("name", ["twenty-questions", "guess-my-city"])
def test_every_answer_is_the_one_that_the_game_gives(name: str) -> None:
    env = make(name)
    wordings = set()
    for riddle in env.corpus(60, seed=1):
        lines = [turn.text for turn in riddle.turns]
        assert 6 <= len(lines) <= 2 * MOST_QUESTIONS + 2 and len({*lines[::2]}) == len(lines) / 2
        item = env.world.items[env.world.move_of(lines[-2]) - len(env.world.questions)]
        env.reset(options={env.sought: item.names[0]})
        for question, answer in zip(lines[::2], lines[1::2], strict=True):
            observation, _, found, _, _ = env.step(question)
            assert observation == answer and found == (question == lines[-2])
            wordings.add(env.world.forms(env.world.move_of(question)).index(question.strip()) == 0)
    assert wordings == {True, False}


def test_the_rare_yes_comes_up_as_often_as_the_common_no() -> None:
    env = make("twenty-questions")
    assert (env.world.outcomes[: len(env.world.questions)] == 1).mean() < 0.1
    answers = [turn.text for riddle in env.corpus(400) for turn in riddle.turns[1:-2:2]]
    assert answers.count("Yes.\n") / len(answers) == pytest.approx(0.5, abs=0.05)


def test_all_of_it_is_said_by_the_model_and_nothing_is_at_stake() -> None:
    (riddle,) = make("twenty-questions").corpus(1)
    assert all(turn.is_agent for turn in riddle.turns) and {*riddle.rewards} == {0.0} and riddle.ended == "terminated"


def test_the_first_texts_are_the_same_and_others_are_not() -> None:
    corpus = make("twenty-questions").corpus
    assert list(corpus(3, seed=4)) == list(islice(corpus(9, seed=4), 3)) != list(corpus(3, seed=5))


def test_other_environments_have_none() -> None:
    with pytest.raises(ConfigError, match="wordle: has no texts to pretrain on"):
        make("wordle").corpus(1)
