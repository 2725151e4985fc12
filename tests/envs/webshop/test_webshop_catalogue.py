"""The generated catalogue: what every product and goal has, sizes, and the same for ever."""

from __future__ import annotations

import hashlib
import re
import tracemalloc
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qsft.envs.webshop.catalogue import Dice, GeneratedCatalogue, asin_of, document, price_limit
from qsft.envs.webshop.products import NO_PRICE_LIMIT
from qsft.envs.webshop.reward import alike, normal_colour, reward
from qsft.errors import ConfigError

CATALOGUE = GeneratedCatalogue()
PRICE = re.compile(r"\$(\d+\.99)(?: to \$(\d+\.99))?")


def test_the_default_has_10000_products_in_12_departments() -> None:
    assert len(CATALOGUE) == CATALOGUE.goals == 10_000
    products = [CATALOGUE.product(number) for number in range(2000)]
    departments = Counter(product.product_category.split(" › ")[0] for product in products)
    assert len(departments) == 12
    assert min(departments.values()) > 100
    kinds = Counter(product.query for product in products)
    assert len(kinds) == 72
    assert min(kinds.values()) > 10
    assert 80 < sum(not product.options for product in products) < 400, "some have no options"
    assert 100 < sum(" to " in product.price_text for product in products) < 300, "some have a range of prices"
    assert 400 < sum(not product.reviews for product in products) < 1000, "some have no reviews"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 9_999))
def test_a_product(number: int) -> None:
    product = CATALOGUE.product(number)
    assert re.fullmatch(r"[A-Z0-9]{10}", product.asin)
    low, high = PRICE.fullmatch(product.price_text).groups()  # type: ignore[union-attr]
    assert float(low) <= product.price <= float(high or low)
    assert round(product.price, 2) == product.price
    words = product.title.lower().replace(",", "").split()
    assert product.nouns
    assert set(product.nouns) <= set(words), "the nouns are of the title"
    assert len(set(product.attributes)) == 5 == len(product.features)
    for attribute in product.attributes:
        assert any(attribute in line.lower() for line in product.features), "the features tell all"
    assert sum(attribute in product.title.lower() for attribute in product.attributes) == 2
    for name, values in product.options.items():
        assert len(set(values)) == len(values) >= 2
        assert f"{name}: {', '.join(values)}" in document(product)


SMALL = {synthetic: GeneratedCatalogue(2000, synthetic=synthetic) for synthetic in (False, True)}


def test_every_option_that_a_goal_can_ask_for_can_be_chosen() -> None:
    """The rule takes a value with a colour's name in it for that colour, even rosemary for rose: such a one pays nothing."""
    products = [SMALL[True].product(number) for number in range(2000)]
    named = {(name, value) for product in products for name, values in product.options.items() for value in values}
    assert len(named) > 80
    unmet = [
        pair for pair in named for wanted in (pair, pair[1]) if not alike(normal_colour(pair[1]), normal_colour(wanted))
    ]
    assert not unmet


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1_999), st.booleans())
def test_a_goal_is_met_by_the_product_that_it_was_written_for(number: int, synthetic: bool) -> None:
    catalogue = SMALL[synthetic]
    goal = catalogue.goal(number)
    product = next(p for p in map(catalogue.product, range(2000)) if p.asin == goal.asin)
    wanted = {value if isinstance(value, str) else value[1] for value in goal.options}
    chosen = {name: value for name, values in product.options.items() for value in values if value in wanted}
    score = reward(product, chosen, goal)
    assert score.total == 1.0
    assert goal.price_upper > product.price
    assert goal.instruction.endswith(f", and price lower than {goal.price_upper:.2f} dollars")
    assert all(attribute in goal.instruction for attribute in goal.attributes)
    assert all(value in goal.instruction for value in wanted)
    if synthetic:
        assert len(goal.options) == len(product.options), "every option is asked for"
        told = ", and ".join(f"{name}: {value}" for name, value in goal.options)
        start = f"Find me {', '.join(goal.attributes)} {goal.query}{' with ' + told if told else ''}, and price"
        assert goal.instruction.startswith(start)


def test_every_product_has_its_goal() -> None:
    catalogue = SMALL[False]
    assert len({catalogue.goal(number).asin for number in range(catalogue.goals)}) == len(catalogue)
    for number in (-1, 2000):
        with pytest.raises(IndexError):
            catalogue.goal(number)


def test_the_limit_of_a_price_is_drawn_as_in_the_original() -> None:
    drawn = {price_limit(24.99, Dice(n))[0] for n in range(300)}
    assert drawn == {40.0, 50.0, 60.0}, "the higher of two of the next four tens"
    assert {price_limit(979.5, Dice(n)) for n in range(50)} == {(990.0, ", and price lower than 990.00 dollars")}
    assert price_limit(985.0, Dice(0)) == (NO_PRICE_LIMIT, "")
    assert price_limit(20.0, Dice(0))[0] > 20.0


def test_the_catalogue_never_changes() -> None:
    """Published scores are of this one: a change of the lists or of the drawing needs a new name, and new numbers."""
    said = "".join(repr(CATALOGUE.product(n)) + CATALOGUE.goal(n).instruction for n in range(0, 10_000, 97))
    assert hashlib.sha256(said.encode()).hexdigest()[:16] == "5b252ee0a09700e4"
    assert CATALOGUE.product(7) == GeneratedCatalogue().product(7) != GeneratedCatalogue(seed=1).product(7)


def test_a_million_products_need_no_memory() -> None:
    catalogue = GeneratedCatalogue(1_000_000)
    tracemalloc.start()
    asins = {catalogue.goal(number).asin for number in range(0, 1_000_000, 2000)}
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(asins) == 500
    assert used < 5_000_000, "of those made, some are kept"
    assert catalogue.product(5) == CATALOGUE.product(5), "the first are the same in every size"


@settings(max_examples=20, deadline=None)
@given(st.sets(st.integers(0, 10**9), min_size=2, max_size=50))
def test_names_differ(numbers: set[int]) -> None:
    assert len({asin_of(number) for number in numbers}) == len(numbers)


@pytest.mark.parametrize(("size", "seed"), [(1999, 0), (10**9 + 1, 0), (10_000, -1)])
def test_bad_sizes(size: int, seed: int) -> None:
    with pytest.raises(ConfigError, match="webshop: "):
        GeneratedCatalogue(size, seed)


def test_dice() -> None:
    """splitmix64's published first outputs for seed 1234567 (Vigna's C code), and fair draws."""
    dice = Dice()
    dice._state = 1234567
    assert [dice._next() for _ in range(3)] == [6457827717110365317, 3203168211198807973, 9817491932198370423]
    counts = Counter(Dice(1, n).below(6) for n in range(6000))
    assert all(850 < counts[face] < 1150 for face in range(6))
    assert sorted(Dice(3).sample("abcdef", 6)) == list("abcdef")
