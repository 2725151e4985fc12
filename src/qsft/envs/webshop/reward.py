"""What a purchase is worth: the score of the original (Yao et al. 2022, arXiv 2207.01206, section 3 and appendix)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from rapidfuzz.fuzz import token_set_ratio

from qsft.envs.webshop.products import Goal, Product

# The words that the original takes for colours. The first of them that occurs anywhere in a value stands for the value:
# "sky blue" is "blue", and "layered" is "red".
COLOURS = tuple(files("qsft.envs.webshop").joinpath("colours.txt").read_text(encoding="utf-8").split())
_ALIKE = 85
_LATIN_1 = dict.fromkeys(range(128, 256))
_NO_WORD = re.compile(r"\W")


@dataclass(frozen=True, slots=True)
class Reward:
    """A score in [0, 1] and its parts: ``total = type * (attributes + options + price) / (all that is wanted + 1)``.

    Args:
        total: the reward.
        type: 1, .5, .1 or 0: is it the kind of product that was asked for?
        attributes: share of the wanted attributes that it has.
        options: share of the wanted options that were chosen; ``None`` where none is wanted.
        price: is it cheap enough?
        query_match, category_match, title_score: what ``type`` follows from.
    """

    total: float
    type: float
    attributes: float
    options: float | None
    price: bool
    query_match: bool
    category_match: bool
    title_score: float


def reward(product: Product, chosen: Mapping[str, str], goal: Goal) -> Reward:
    """What buying ``product`` with the ``chosen`` options (name -> value) is worth to a customer with this goal."""
    kind, query_match, category_match, title_score = _kind(product, goal)
    attributes = sum(_has_attribute(product, wanted) for wanted in goal.attributes)
    values = [normal_colour(value) for value in chosen.values()]
    options = sum(any(alike(value, normal_colour(wanted)) for value in values) for wanted in goal.options)
    cheap = product.price <= goal.price_upper
    parts = (attributes + options + cheap) / (len(goal.attributes) + len(goal.options) + 1)
    return Reward(
        total=parts * kind,
        type=kind,
        attributes=attributes / len(goal.attributes),
        options=options / len(goal.options) if goal.options else None,
        price=cheap,
        query_match=query_match,
        category_match=category_match,
        title_score=title_score,
    )


def _kind(product: Product, goal: Goal) -> tuple[float, bool, bool, float]:
    query_match = product.query == goal.query
    category_match = len(_path(product.product_category) & _path(goal.product_category)) >= 2
    # A goal whose title has no noun is as far from every product; a noun that stands there twice counts twice below.
    shared = len(set(product.nouns) & set(goal.nouns))
    title_score = shared / len(goal.nouns) if goal.nouns else 0.2
    kind = 1.0 if query_match or category_match or title_score > 0.2 else 0.5
    if title_score < 0.1:
        kind = 0.1
    if title_score == 0.0:
        kind = 0.0
    return kind, query_match, category_match, title_score


def _path(category: str) -> set[str]:
    return {part.strip() for part in category.split("›")}


def _has_attribute(product: Product, wanted: str) -> bool:
    if any(alike(attribute, wanted) for attribute in product.attributes):
        return True
    texts = (product.title, " ".join(product.features), product.description)
    return any(wanted in text.lower() for text in texts)


def normal_colour(value: str | tuple[str, str]) -> str | tuple[str, str]:
    """The first colour that occurs in a value, else the value. In a (name, value) pair only a whole part can be one."""
    return next((colour for colour in COLOURS if colour in value), value)


@lru_cache(maxsize=1 << 16)
def alike(one: str | tuple[str, str], other: str | tuple[str, str]) -> bool:
    """Are they taken for the same? The original's fuzzy comparison: token set ratio above 85 of 100."""
    return round(token_set_ratio(_plain(str(one)), _plain(str(other)))) > _ALIKE


def _plain(text: str) -> str:
    return _NO_WORD.sub(" ", text.translate(_LATIN_1)).lower().strip()
