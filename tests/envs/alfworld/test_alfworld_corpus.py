"""Tours of rooms: what a model reads before it sees a game."""

from __future__ import annotations

import itertools
import re

import pytest

from qsft.envs import make
from qsft.envs.alfworld.facts import object_types
from qsft.envs.alfworld.texts import SEEN_NOWHERE, TASK
from qsft.models.scratch import word_level_tokenizer


def lines(count: int, seed: int = 0, **options: object) -> list[list[str]]:
    tours = list(make("alfworld", **options).corpus(count, seed))
    assert all(turn.is_agent and turn.reward == 0 for tour in tours for turn in tour.turns)
    return [[turn.text for turn in tour.turns] for tour in tours]


@pytest.mark.parametrize("wording", ["move", "put"])
def test_a_model_of_whole_actions_can_say_them_and_no_task_is_told(wording: str) -> None:
    tokenizer = word_level_tokenizer(make("alfworld", wording=wording).symbols(whole_actions=True))
    for tour in lines(60, wording=wording):
        for line in tour:
            ids = tokenizer(line)["input_ids"]
            assert tokenizer.unk_token_id not in ids
            assert tokenizer.decode(ids) == line
            assert TASK not in line


def test_with_pictures_what_is_told_is_shown_first() -> None:
    """The same tours; a picture stands before every text of the world, and before none of the commands and questions."""
    for plain, shown in zip(
        make("alfworld").corpus(20), make("alfworld-image", text="withheld", image_size=64).corpus(20), strict=True
    ):
        assert [turn for turn in shown.turns if turn.is_agent] == plain.turns
        before = [turn for turn, after in itertools.pairwise(shown.turns) if not turn.is_agent and after.is_agent]
        told = [after.text for turn, after in itertools.pairwise(shown.turns) if not turn.is_agent]
        assert len(before) == sum(not turn.is_agent for turn in shown.turns)
        assert all(turn.text == "" and len(turn.images) == 1 for turn in before)
        others = {turn.text for turn in shown.turns if turn.is_agent} - set(told)
        assert all(re.match("You |On the |The |Nothing |This |There", text) for text in told), told
        assert not any(text.startswith(("You are", "You arrive", "Nothing happens")) for text in others)
        assert len({turn.images for turn in before}) > len(before) / 3


def test_the_first_do_not_depend_on_how_many() -> None:
    assert lines(3) == lines(5)[:3]
    assert lines(3, seed=1) != lines(3)


def test_what_is_answered_about_a_thing_was_told_before() -> None:
    asked = nowhere = 0
    for tour in lines(300):
        for place, line in enumerate(tour):
            kind = re.fullmatch(r"a ([a-z]+)\n", line)
            if kind is None:
                continue
            assert kind[1] in object_types()
            answer, before = tour[place + 1].strip(), tour[:place]
            told = [each for each in before if re.search(rf"\b{kind[1]} \d", each)]
            asked += 1
            if answer == SEEN_NOWHERE:
                nowhere += 1
                assert not told
            else:
                names = set(re.findall(rf"\b{kind[1]} \d+", answer))
                (holder,) = re.findall(r"(?:On the|^The) ([a-z]+ \d+)", answer)
                assert names and all(any(name in each for each in told) for name in names)
                assert any(holder in each for each in before)
    assert asked > 900
    assert 0.15 < nowhere / asked < 0.45


def test_there_is_something_of_everything() -> None:
    verbs = [line.split()[0] for tour in lines(400) for line in tour if line[0].islower()]
    count = {verb: verbs.count(verb) for verb in ("go", "open", "take", "move", "use", "look")}
    assert count["go"] > len(verbs) / 3
    assert count["look"] < len(verbs) / 4
    assert min(count["open"], count["take"]) > 100
    assert min(count["move"], count["use"]) > 10
