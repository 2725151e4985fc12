"""All tokens of the texts of the generated catalogue in the mode "words"."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from qsft.envs.webshop.catalogue import DESCRIPTION, FEATURES, INSTRUCTIONS, REVIEWS
from qsft.envs.webshop.search import FOUND
from qsft.envs.webshop.session import BACK, BUY, NEXT, PREVIOUS, SUB_PAGES
from qsft.envs.webshop.texts import NOTHING, spaced
from qsft.envs.webshop.vocabulary import misspelt, vocabulary


@cache
def _symbols() -> tuple[str, ...]:
    found = {"search[", "click[", "]"}
    for phrase in _phrases():
        found.update(spaced(phrase).split())
    names = {word for phrase in _names() for word in spaced(phrase).split()}
    found |= names | {misspelt(word) for word in names}
    return ("\n", *sorted(found))


def symbols() -> list[str]:
    """A newline, and every token between blanks."""
    return list(_symbols())


def _names() -> Iterator[str]:
    """What can stand in a query."""
    words = vocabulary()
    yield from words.brands
    for category in words.categories.values():
        yield from (*category.attributes, *category.materials, *category.uses)
    for kind in words.kinds:
        yield from (kind.query, kind.noun, *kind.options)
    for pool in words.pools.values():
        yield from pool


def _phrases() -> Iterator[str]:
    """What else is said: the sentences around the names, buttons, numbers."""
    yield from (BACK, PREVIOUS, NEXT, BUY, *SUB_PAGES, NOTHING, "none")
    yield from ("page of results again no more item chosen : | for , $ to . thank you for shopping reviews", "with")
    yield from ("Find me with , and price lower than dollars", *(str(number) for number in range(FOUND + 1)))
    for frame in (*FEATURES, DESCRIPTION, *INSTRUCTIONS):
        yield re.sub(r"\{\w*\}", " ", frame)
    yield from (f"{title} {score} {body}" for title, body, score in REVIEWS)
    kinds = vocabulary().kinds
    # A range begins below `high` and is at most `low` dollars wide.
    dearest = max(kind.high + kind.low for kind in kinds)
    yield from (f"{dollars}.99" for dollars in range(min(kind.low for kind in kinds), dearest))
    yield from (f"{limit}.00" for limit in range(10, dearest + 50, 10))
