"""The table: what a person would check, checked by rules that hold in the world whatever the table says."""

from __future__ import annotations

import csv
from collections import Counter
from importlib.resources import files
from itertools import combinations

import pytest

from qsft.envs import make
from qsft.envs.twenty_questions import clean_question, names_item, objects_world
from qsft.envs.twenty_questions.env import GUESS_FORMS
from qsft.envs.twenty_questions.world import Item, Question, World, load_world
from qsft.errors import ConfigError

WORLD = objects_world()
ROWS = list(
    csv.DictReader(
        files("qsft.envs.twenty_questions").joinpath("objects.tsv").read_text(encoding="utf-8").splitlines(),
        delimiter="\t",
    )
)
#: attribute -> the objects that have it
HAVE = {
    question.attribute: {
        item.names[0] for item, reply in zip(WORLD.items, WORLD.outcomes[number], strict=True) if reply == 1
    }
    for number, question in enumerate(WORLD.questions)
}


def test_size() -> None:
    assert len(WORLD.items) == len(ROWS) == 158
    assert len({row["category"] for row in ROWS}) == 17
    assert len(WORLD.questions) >= 100
    assert sum(len(item.names) > 1 for item in WORLD.items) > 50, "several names an object"
    assert all(len(question.forms) >= 2 for question in WORLD.questions), "every question is paraphrased"
    assert WORLD.outcomes.shape == (len(WORLD.questions) + 158, 158)


def test_every_two_objects_differ_and_no_question_is_idle() -> None:
    asked = WORLD.outcomes[: len(WORLD.questions)]
    for a, b in combinations(range(158), 2):
        assert (asked[:, a] != asked[:, b]).any(), (WORLD.items[a].names[0], WORLD.items[b].names[0])
    for attribute, having in HAVE.items():
        assert 0 < len(having) < 158, attribute
    for (a, have_a), (b, have_b) in combinations(HAVE.items(), 2):
        assert have_a != have_b, f"{a} and {b} ask the same"


IMPLIED = """
mammal>animal bird>animal fish>animal reptile>animal insect>animal animal>alive pet>animal farm-animal>animal
wild>animal lives-in-water>animal bird>wings bird>lays-eggs insect>lays-eggs fish>lives-in-water fish>good-swimmer
reptile>lays-eggs lives-in-water>good-swimmer cat-family>mammal hunts>animal eats-grass>mammal lays-eggs>animal
bird-of-prey>bird bird-of-prey>flies bird-of-prey>hunts long-neck>bird ridden>mammal works-for-people>mammal
lives-in-africa>wild mane>mammal hops>animal climbs-trees>mammal venom>animal eight-limbs>animal
fruit>food-or-drink vegetable>food-or-drink drink>food-or-drink fruit>plant grain>plant salad>vegetable
underground>vegetable tropical>fruit milk-product>food-or-drink flour>food-or-drink beans>food-or-drink
breakfast>food-or-drink cooked>food-or-drink sweet>food-or-drink grows-on-trees>fruit bunches>fruit seeds>plant
vehicle>made-by-people two-wheels>wheels engine>made-by-people carries-many>vehicle public-transport>carries-many
roads>wheels on-water>made-by-people in-the-air>flies in-the-air>engine bigger-than-car>bigger-than-person
bigger-than-house>bigger-than-car bigger-than-country>bigger-than-house pocket>carried-by-one
clothing>worn feet>made-by-people head>worn hands>worn sleeves>clothing legs>clothing for-women>clothing
pairs>carried-by-one furniture>made-by-people storage>made-by-people sleep-on>furniture sleep-on>sit-on
kitchenware>made-by-people eat-with>kitchenware ceramic>kitchenware holds-liquid>kitchenware soup>eat-with
tool>made-by-people garden-tool>tool woodwork>tool cuts>handle|engine electric>made-by-people screen>electric
wall-plug>electric communication>screen keyboard>made-by-people instrument>made-by-people orchestra>instrument
sports>made-by-people ball-game>sports toy>made-by-people for-children>toy looks-alive>toy
stationery>made-by-people writes>stationery reading>paper paper>made-by-people metal>made-by-people
plastic>made-by-people cloth>made-by-people leather>made-by-people rubber>made-by-people glass-part>made-by-people
gold-or-silver>metal batteries>made-by-people measures>made-by-people thorns>plant thorns>sharp
flowing-water>outdoors sky>outdoors land-or-sea-feature>bigger-than-house
"""
EXCLUSIVE = """
animal/made-by-people animal/plant animal/food-or-drink mammal/bird mammal/lays-eggs fish/mammal reptile/insect
plant/made-by-people fruit/vegetable drink/fruit vehicle/clothing vehicle/furniture kitchenware/tool
instrument/vehicle toy/tool electric/alive bigger-than-person/pocket bigger-than-person/carried-by-one
red/yellow red/green yellow/green white/gray orange-colored/green wood/metal metal/plastic ceramic/metal paper/metal
farm-animal/lives-in-water pet/farm-animal fur/wings mammal/wings hunts/eats-grass round/flat stationery/tool
carried-by-one/carries-many sky/food-or-drink
"""


def test_what_follows_from_what() -> None:
    pairs = [pair for pair in IMPLIED.split() if ">" in pair]
    assert len(pairs) > 90
    for pair in pairs:
        attribute, follows = pair.split(">")
        allowed = set().union(*(HAVE[name] for name in follows.split("|")))
        assert HAVE[attribute] <= allowed, (pair, HAVE[attribute] - allowed)


def test_what_excludes_what() -> None:
    for pair in EXCLUSIVE.split():
        one, other = pair.split("/")
        assert not HAVE[one] & HAVE[other], (pair, HAVE[one] & HAVE[other])


def test_categories_have_their_attribute() -> None:
    kinds = {
        "mammals": "mammal",
        "birds": "bird",
        "other animals": "animal",
        "fruits": "fruit",
        "vegetables": "vegetable",
        "food and drink": "food-or-drink",
        "vehicles": "vehicle",
        "clothes": "clothing",
        "furniture": "furniture",
        "kitchen things": "kitchenware",
        "tools": "tool",
        "electrical things": "electric",
        "musical instruments": "instrument",
        "personal things": "made-by-people",
    }
    for row, item in zip(ROWS, WORLD.items, strict=True):
        attribute = kinds.get(row["category"])
        if attribute is not None:
            assert item.names[0] in HAVE[attribute]
    counts = Counter(row["category"] for row in ROWS)
    for category, attribute in list(kinds.items())[:-1]:
        if attribute not in ("animal", "food-or-drink"):
            assert len(HAVE[attribute]) == counts[category], f"only {category} are {attribute}"


@pytest.mark.parametrize(
    ("name", "yes", "no"),
    [
        ("penguin", "bird wings good-swimmer webbed-feet lays-eggs black-and-white", "flies mammal pocket green"),
        ("whale", "mammal good-swimmer bigger-than-car lives-in-water", "fish lays-eggs fur four-legs"),
        ("banana", "fruit yellow sweet thick-skin tropical", "round made-by-people vegetable cooked"),
        ("piano", "instrument keyboard strings wood expensive", "orchestra carried-by-one blow pocket"),
        ("submarine", "vehicle engine on-water at-sea metal", "wheels flies roads wood"),
        ("moon", "sky light round night bigger-than-house", "alive made-by-people plant red"),
        ("egg", "food-or-drink shell breaks breakfast", "made-by-people plant sweet animal"),
        ("scissors", "stationery cuts metal sharp", "tool kitchenware wood"),
    ],
)
def test_some_objects(name: str, yes: str, no: str) -> None:
    assert all(name in HAVE[attribute] for attribute in yes.split())
    assert not any(name in HAVE[attribute] for attribute in no.split())


def test_every_guess_wins_its_object_and_no_other() -> None:
    env = make("twenty-questions")
    for number, item in enumerate(WORLD.items):
        move = len(WORLD.questions) + number
        forms = WORLD.forms(move)
        assert len(forms) == len(GUESS_FORMS) * len(item.phrases)
        for text in forms:
            assert clean_question(text) == text
            assert WORLD.move_of(text) == move
            env.reset(options={"object": item.names[-1]})
            assert env.step(text + "\n")[:3] == ("Yes.\n", 0.0, True), text
            other = WORLD.items[(number + 1) % 158].names[0]
            env.reset(options={"object": other})
            assert env.step(text + "\n")[:3] == ("No.\n", -1.0, False)


def test_no_question_is_a_guess_by_accident() -> None:
    """ "Is it bigger than a car?" ends in a car; were it true of cars, asking it would win."""
    nouns = make("twenty-questions")._nouns
    for number, question in enumerate(WORLD.questions):
        for text in question.forms:
            assert clean_question(text) == text
            assert WORLD.move_of(text) == number
            for item, reply in zip(WORLD.items, WORLD.outcomes[number], strict=True):
                assert not (reply and names_item(text, item.names, nouns)), (text, item.names[0])


def test_nouns_are_words_of_the_questions() -> None:
    words = {
        word.strip("?").lower() for question in WORLD.questions for text in question.forms for word in text.split()
    }
    listed = files("qsft.envs.twenty_questions").joinpath("nouns.txt").read_text(encoding="utf-8").split()
    assert set(listed) <= words
    assert len(listed) == len(set(listed)) > 150


def test_what_is_understood() -> None:
    cat = len(WORLD.questions) + WORLD.index["cat"]
    for text in ("Is it a cat?", "is  it cat", "IS IT THE CAT?!\n", "Could it be an cat?", "is the object a kitty"):
        assert WORLD.move_of(text) == cat
    for text in ("Is it a dog or a cat?", "Is it?", "", "Is it a catfish?", "Is it not an animal?"):
        assert WORLD.move_of(text) is None


def world(items: str, questions: str) -> World:
    return load_world(items, questions, GUESS_FORMS)


def test_tables_that_contradict_themselves() -> None:
    items = "names\tattributes\na cat\talive\na dog\talive"
    assert world(items, "attribute\tquestions\nalive\tIs it alive?").outcomes[0].tolist() == [1, 1]
    with pytest.raises(ConfigError, match="row 3: attribute 'loud' has no question"):
        world(items + " loud", "attribute\tquestions\nalive\tIs it alive?")
    with pytest.raises(ConfigError, match="two rows"):
        world(items, "attribute\tquestions\nalive\tIs it alive?\nalive\tDoes it live?")
    with pytest.raises(ConfigError, match="two meanings"):
        world(items, "attribute\tquestions\nalive\tIs it alive?\nold\tIs it alive!")
    with pytest.raises(ConfigError, match="'cat' belongs to two items"):
        World([Item.from_phrases(["a cat"]), Item.from_phrases(["the cat"])], [], WORLD.outcomes[:0, :2], GUESS_FORMS)


def test_open_questions_are_answered_from_their_column() -> None:
    small = world(
        "names\tattributes\tcolor\na cat\t\tgray\na frog\t\tgreen",
        "attribute\tquestions\tanswer\ncolor\tWhat color is it? | Which color?\tIt is {}.",
    )
    assert small.questions == (
        Question("color", ("What color is it?", "Which color?"), ("It is gray.", "It is green.")),
    )
    assert small.outcomes[0].tolist() == [0, 1]
