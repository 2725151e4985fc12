"""The reward against the original's own values, and each of its branches by hand."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qsft.envs.webshop.products import Goal, Product
from qsft.envs.webshop.reward import alike, normal_colour, reward

GOLDEN = Path(__file__).parents[3] / "../shared/golden/webshop_reward.jsonl"


def product_of(case: dict[str, Any]) -> Product:
    given = case["product"]
    return Product(
        asin="B000000000",
        query=given["query"],
        product_category=given["product_category"],
        title=given["Title"],
        nouns=tuple(case["nouns"]["product"]),
        attributes=tuple(given["Attributes"]),
        features=tuple(given["BulletPoints"]),
        description=given["Description"],
        price=case["price"],
    )


def goal_of(case: dict[str, Any]) -> Goal:
    given = case["goal"]
    pairs = given["goal_options_form"] == "dict"
    return Goal(
        asin="B000000000",
        query=given["query"],
        product_category=given["product_category"],
        nouns=tuple(case["nouns"]["goal"]),
        instruction="",
        attributes=tuple(given["attributes"]),
        options=tuple((name, value) for name, value in given["goal_options"])
        if pairs
        else tuple(given["goal_options"]),
        price_upper=given["price_upper"],
    )


@pytest.mark.skipif(not GOLDEN.exists(), reason="golden vectors are not here")
def test_every_value_is_the_original_s() -> None:
    cases = [json.loads(line) for line in GOLDEN.read_text(encoding="utf-8").splitlines()]
    assert len(cases) == 113
    types = Counter()
    for case in cases:
        ours = reward(product_of(case), case["options"], goal_of(case))
        theirs = case["out"]
        assert ours.total == theirs["reward"], case
        assert ours.type == theirs["r_type"], case
        assert ours.attributes == theirs["r_att"], case
        assert ours.options == theirs["r_option"], case
        assert ours.price == theirs["r_price"], case
        assert ours.query_match == theirs["query_match"], case
        assert ours.category_match == theirs["category_match"], case
        assert ours.title_score == theirs["title_score"], case
        types[ours.type] += 1
    assert set(types) == {0.0, 0.1, 0.5, 1.0}, "the vectors hold every kind of type reward"


MAT = Product(
    asin="B000000001",
    query="yoga mats",
    product_category="Sports › Mats › Yoga Mats",
    title="Quillon Cork Yoga Mat",
    nouns=("quillon", "cork", "yoga", "mat"),
    attributes=("non slip",),
    features=("Easy to carry", "QUICK DRY"),
    description="Sweat proof, they say.",
    price=20.0,
)


def goal(**changes: Any) -> Goal:
    wanted: dict[str, Any] = {
        "asin": MAT.asin,
        "query": "yoga mats",
        "product_category": MAT.product_category,
        "nouns": MAT.nouns,
        "instruction": "",
        "attributes": ("non slip",),
        "options": ("purple", "6 mm"),
        "price_upper": 30.0,
    }
    return Goal(**(wanted | changes))


@pytest.mark.parametrize(
    ("changes", "chosen", "score"),
    [
        ({}, {"color": "deep purple", "thickness": "6 mm"}, 1.0),
        ({}, {"color": "deep purple"}, 3 / 4),
        ({}, {}, 2 / 4),
        ({"price_upper": 20.0}, {}, 2 / 4),
        ({"price_upper": 10.0}, {}, 1 / 4),
        ({"options": ()}, {"color": "red"}, 1.0),
        ({"options": (), "attributes": ("non slip", "quick dry", "sweat proof", "cork")}, {}, 1.0),
        ({"options": (), "attributes": ("fold flat",)}, {}, 1 / 2),
        # The kind: same category alone; nouns alone; neither; no noun in common; no noun wanted.
        ({"options": (), "query": "mats"}, {}, 1.0),
        ({"options": (), "query": "mats", "product_category": "Sports › Bags"}, {}, 1.0),
        ({"options": (), "query": "mats", "product_category": "x", "nouns": ("mat", "a", "b", "c", "d")}, {}, 0.5),
        ({"options": (), "query": "mats", "product_category": "x", "nouns": ("mat", *"abcdefghij")}, {}, 0.1),
        ({"options": (), "nouns": ("bag",)}, {}, 0.0),
        ({"options": (), "query": "mats", "product_category": "x", "nouns": ()}, {}, 0.5),
    ],
)
def test_every_branch(changes: dict, chosen: dict, score: float) -> None:
    assert reward(MAT, chosen, goal(**changes)).total == pytest.approx(score, abs=1e-12)


def test_colours() -> None:
    assert normal_colour("midnight sky blue") == "blue", "the first in the alphabet, not in the text"
    assert normal_colour("layered") == "red"
    assert normal_colour("6 mm") == "6 mm"
    assert normal_colour(("color", "sky blue")) == ("color", "sky blue")
    assert normal_colour(("color", "blue")) == "blue"


def test_alike() -> None:
    assert alike("size 4 inch", "4 inch"), "a part of the words is enough"
    assert alike("4 inch", "4 inches")
    assert not alike("2 pack", "4 pack")
    assert not alike("", "")
    assert alike("café", "caf"), "letters of Latin-1 are dropped before, as in the original"
    assert alike(("size", "large"), "large")


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=30), st.text(max_size=30))
def test_alike_takes_any_text(one: str, other: str) -> None:
    assert alike(one, other) == alike(other, one)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.sampled_from(["non slip", "quick dry", "fold flat"]), min_size=1, max_size=3),
    st.lists(st.sampled_from(["red", "6 mm", "large"]), max_size=3),
    st.dictionaries(st.sampled_from(["color", "size"]), st.sampled_from(["red", "6 mm", "large"]), max_size=2),
    st.floats(1, 100),
)
def test_a_score_lies_in_0_to_1(attributes: list, options: list, chosen: dict, limit: float) -> None:
    score = reward(MAT, chosen, goal(attributes=tuple(attributes), options=tuple(options), price_upper=limit))
    assert 0.0 <= score.total <= 1.0


def test_no_value_of_the_catalogue_is_taken_for_another() -> None:
    """Else choosing wrongly would score as if it had been right."""
    from qsft.envs.webshop.vocabulary import vocabulary

    known = vocabulary()
    for values in known.pools.values():
        for one, other in combinations(values, 2):
            assert not alike(normal_colour(one), normal_colour(other)), (one, other)
    for category in known.categories.values():
        for one, other in combinations(category.attributes, 2):
            assert not alike(one, other), (one, other)
