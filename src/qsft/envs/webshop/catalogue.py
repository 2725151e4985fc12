"""The embedded catalogue: every product and every goal is made from its number, so that any size costs no memory."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol, TypeVar

from qsft.envs.webshop.products import NO_PRICE_LIMIT, Goal, Product, Review
from qsft.envs.webshop.vocabulary import Kind, vocabulary
from qsft.errors import ConfigError

T = TypeVar("T")

#: Made products that are kept. A page shows ten; popular ones come again and again.
_KEPT = 1 << 14
_PRICE_LIMITS = [10.0 * step for step in range(1, 100)]
_LETTERS = string.digits + string.ascii_uppercase
_ASINS = len(_LETTERS) ** 8
# Neighbours get names far apart; odd and no multiple of 3, so that it has an inverse.
_SPREAD = 1_315_423_911_001
_WIDEST = 1_000_000_000

FEATURES = ("{}: what our customers praise.", "{}: tested by hand.", "{}: that is a promise.")
DESCRIPTION = "{brand} makes this {noun} with {material} for {use}. Its best points: {first}, {second}, {third}."
INSTRUCTIONS = (
    "i am looking for {attributes} {query}{options}",
    "i need {query}, {attributes}{options}",
    "find me {attributes} {query}{options}",
    "please help me buy {query}, {attributes}{options}",
)
REVIEWS = (
    ("Not for me", "It broke within a week and nobody answered.", 1.0),
    ("Disappointed", "It looks cheaper than in the picture.", 2.0),
    ("It is fine", "Does what it should and nothing more.", 3.0),
    ("Good value", "We use it every day and would buy it again.", 4.0),
    ("Perfect", "Better than expected, and a lovely gift.", 5.0),
)


class Catalogue(Protocol):
    """Products by number, and what customers are sent to buy.

    Attributes:
        name: what it is, for messages.
        key: names the products' texts in a folder of search indexes.
        goals: how many goals there are.
    """

    name: str
    key: str
    goals: int

    def __len__(self) -> int: ...

    def product(self, number: int) -> Product: ...

    def listing(self, number: int) -> Product:
        """The product as a page of results shows it; where nouns take time to find, without them."""
        ...

    def goal(self, number: int) -> Goal: ...

    def document(self, number: int) -> str:
        """What the search engine reads of a product."""
        ...


def document(product: Product) -> str:
    """What the search engine reads of a product, as in the original."""
    options = ", and ".join(f"{name}: {', '.join(values)}" for name, values in product.options.items())
    first = product.features[0] if product.features else ""
    return " ".join((product.title, product.description, first, options)).lower()


def price_limit(price: float, pick: Dice) -> tuple[float, str]:
    """A limit above the price, drawn as in the original, and how the instruction says it."""
    above = [limit for limit in _PRICE_LIMITS if limit > price][:4]
    if len(above) < 2:
        return NO_PRICE_LIMIT, ""
    limit = max(pick.sample(above, 2))
    return limit, f", and price lower than {limit:.2f} dollars"


class Dice:
    """Drawing by number (splitmix64, Steele et al. 2014): the same in every version of Python, and cheap to start."""

    def __init__(self, *key: int) -> None:
        self._state = 0
        for part in key:
            self._state = self._next() ^ part

    def _next(self) -> int:
        self._state = (self._state + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        mixed = self._state
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        return mixed ^ (mixed >> 31)

    def below(self, limit: int) -> int:
        return self._next() % limit

    def one(self, items: Sequence[T]) -> T:
        return items[self._next() % len(items)]

    def sample(self, items: Sequence[T], count: int) -> list[T]:
        """``count`` different places of ``items``, in random order."""
        left = list(items)
        return [left.pop(self._next() % len(left)) for _ in range(count)]


class GeneratedCatalogue:
    """The embedded catalogue.

    Args:
        size: number of products, from 2,000 to a thousand million. There is a goal for each product.
        seed: another seed makes another catalogue of the same words; at least 0.
        synthetic: goals in the wording that the original uses for its synthetic ones, where every option is chosen,
            instead of one that leaves some of them open.

    Raises:
        ConfigError: a size or a seed out of range.
    """

    def __init__(self, size: int = 10_000, seed: int = 0, synthetic: bool = False) -> None:
        if not 2000 <= size <= _WIDEST:
            raise ConfigError(f"webshop: products={size} must be from 2,000 to {_WIDEST:,}")
        if not 0 <= seed < 1 << 64:
            raise ConfigError(f"webshop: catalogue_seed={seed} must be at least 0 and below 2 ** 64")
        self.size = self.goals = size
        self.seed = seed
        self.synthetic = synthetic
        self.name = f"catalogue of {size:,} products"
        self.key = f"generated-1-{size}-{seed}"
        self._stride = next(step for step in range(2_654_435_761 % size, 2 * size) if math.gcd(step, size) == 1)
        self.product = lru_cache(maxsize=_KEPT)(self._product)
        self.listing = self.product

    def __len__(self) -> int:
        return self.size

    def document(self, number: int) -> str:
        return document(self._product(number))

    def _product(self, number: int) -> Product:
        words, pick = vocabulary(), Dice(self.seed, 1, number)
        kind, brand = pick.one(words.kinds), pick.one(words.brands)
        material, use = pick.one(kind.category.materials), pick.one(kind.category.uses)
        attributes = pick.sample(kind.category.attributes, 5)
        first, second, third, *_ = attributes
        price, price_text = _price(kind, pick)
        reviews = tuple(Review(*pick.one(REVIEWS)) for _ in range(pick.below(3)))
        title = f"{brand} {_title(first)} {_title(material)} {_title(kind.noun)}, {_title(second)}, for {_title(use)}"
        sentence = {"brand": brand, "noun": kind.noun, "material": material, "use": use}
        return Product(
            asin=asin_of(number),
            query=kind.query,
            product_category=f"{kind.category.department} › {kind.shelf} › {_title(kind.query)}",
            title=title,
            nouns=_nouns(brand, material, kind.noun, use),
            attributes=tuple(attributes),
            features=tuple(
                pick.one(FEATURES).format(attribute.capitalize()) for attribute in pick.sample(attributes, 5)
            ),
            description=DESCRIPTION.format(**sentence, first=first, second=attributes[3], third=third),
            options=_options(kind, pick),
            price=price,
            price_text=price_text,
            rating=f"{sum(float(review.score) for review in reviews) / len(reviews):.1f}" if reviews else "N.A.",
            reviews=reviews,
        )

    def goal(self, number: int) -> Goal:
        """Goal ``number``, 0 to ``goals - 1``.

        Raises:
            IndexError: there is no such goal.
        """
        if not 0 <= number < self.goals:
            raise IndexError(number)
        # Neighbouring goals are about products far apart.
        product = self.product((number + 1) * self._stride % self.size)
        pick = Dice(self.seed, 2, number)
        attributes = tuple(pick.sample(product.attributes, 1 + pick.below(2)))
        limit, limit_text = price_limit(product.price, pick)
        wanted = [(name, pick.one(values)) for name, values in sorted(product.options.items())]
        if self.synthetic:
            told = " with " + ", and ".join(f"{name}: {value}" for name, value in wanted) if wanted else ""
            text = f"Find me {', '.join(attributes)} {product.query}{told}"
            options: tuple[str | tuple[str, str], ...] = tuple(wanted)
        else:
            wanted = [option for option in wanted if pick.below(4)]
            told = "".join(f" in {value}" if name == "color" else f" with {name} {value}" for name, value in wanted)
            frame = pick.one(INSTRUCTIONS)
            text = frame.format(attributes=", ".join(attributes), query=product.query, options=told)
            options = tuple(value for _, value in wanted)
        return Goal.of(product, text + limit_text, attributes, options, limit)


def asin_of(number: int) -> str:
    """The name of a product in the shop: another one for every number."""
    code = (number + 1) * _SPREAD % _ASINS
    letters = []
    for _ in range(8):
        code, letter = divmod(code, len(_LETTERS))
        letters.append(_LETTERS[letter])
    return "B0" + "".join(letters)


def _price(kind: Kind, pick: Dice) -> tuple[float, str]:
    """One price, or (for one product in ten) two of which the text tells both, as in the original."""
    low = kind.low + pick.below(kind.high - kind.low)
    if pick.below(10):
        return low + 0.99, f"${low}.99"
    more = 1 + pick.below(kind.low)
    return round(low + 0.99 + more * pick.below(100) / 100, 2), f"${low}.99 to ${low + more}.99"


def _options(kind: Kind, pick: Dice) -> dict[str, tuple[str, ...]]:
    if not pick.below(12):
        return {}
    chosen = {}
    for name, pool in kind.options.items():
        values = vocabulary().pools[pool]
        some = set(pick.sample(values, min(4, max(2, len(values) - 1))))
        chosen[name] = tuple(value for value in values if value in some)
    return chosen


def _nouns(*phrases: str) -> tuple[str, ...]:
    """The words but for participles such as "watering"."""
    words = " ".join(phrases).lower().split()
    return tuple(word for word in words if not word.endswith(("ing", "ed")))


def _title(phrase: str) -> str:
    return string.capwords(phrase)
