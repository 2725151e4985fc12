"""The original's own files, read from a user's folder: its products, goals and attributes.

None of them comes with qsft. Everything is held in memory, as in the original.
"""

from __future__ import annotations

import itertools
import os
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from qsft.envs.webshop.catalogue import Dice, document, price_limit
from qsft.envs.webshop.fields import entry, field, filled, found, read_json, texts
from qsft.envs.webshop.products import UNKNOWN_PRICE, Goal, Product, Review
from qsft.errors import ConfigError, DataError

Tagger = Callable[[str], Sequence[str]]

#: What each file may be called; the first that is there is read.
PRODUCTS = ("items_shuffle.json", "items_shuffle_1000.json")
ATTRIBUTES = ("items_ins_v2.json", "items_ins_v2_1000.json")
HUMAN_GOALS = ("items_human_ins.json",)
REVIEWS = ("reviews.json",)
# The original shuffles its goals with this seed; so their numbers, and the splits, are the same here.
_SHUFFLE = 233
_NO_NUMBER = re.compile(r"[^\d.]")
_NOUNS = ("PNOUN", "NOUN", "PROPN")


class OriginalCatalogue:
    """The original's products and goals.

    Prices that the files give as a range, and the price limits of goals, are drawn: by the original anew at each start,
    here always the same.

    Args:
        folder: holds ``items_shuffle.json``, ``items_ins_v2.json``, ``items_human_ins.json`` (the latter for human
            goals alone; of the first two, the ones that end in ``_1000`` do too) and perhaps ``reviews.json``.
        synthetic: its synthetic goals instead of the human ones.
        tagger: finds the nouns of a title: name of a spaCy model, or a function from a text to its nouns.

    Raises:
        DataError: a file is missing or is not what it should be.
    """

    def __init__(self, folder: str | os.PathLike[str], synthetic: bool, tagger: str | Tagger) -> None:
        self.name = f"shop in {os.fspath(folder)}"
        self._nouns = lru_cache(maxsize=1 << 16)(spacy_nouns(tagger) if isinstance(tagger, str) else tagger)
        path = Path(folder)
        self._source = source = found(path, PRODUCTS)
        self.key = f"original-{source.stat().st_size}-{source.stat().st_mtime_ns}"
        self._attributes_file = found(path, ATTRIBUTES)
        self._attributes = read_json(self._attributes_file, dict)
        self._reviews_file = path / REVIEWS[0]
        reviews = read_json(self._reviews_file, list) if self._reviews_file.exists() else []
        where = f"{self._reviews_file}: row"
        self._reviews = {field(row, "asin", str, f"{where} {number}"): row for number, row in enumerate(reviews)}
        self._rows: list[Mapping[str, Any]] = []
        self._numbers: dict[str, int] = {}
        for number, row in enumerate(read_json(source, list)):
            asin = field(row, "asin", str, f"{source}: product {number}")
            if asin != "nan" and len(asin) <= 10 and asin not in self._numbers:
                self._numbers[asin] = len(self._rows)
                self._rows.append(row)
        if not self._rows:
            raise DataError(f"{source}: holds no product; is it the right file?")
        self.listing = lru_cache(maxsize=1 << 16)(self._listing)
        goals_file = self._attributes_file if synthetic else found(path, HUMAN_GOALS)
        self._goals = self._synthetic_goals() if synthetic else self._human_goals(goals_file)
        if not self._goals:
            raise DataError(f"{goals_file}: holds no goal for the products of {source}; are the files of one shop?")
        random.Random(_SHUFFLE).shuffle(self._goals)
        self.goals = len(self._goals)

    def __len__(self) -> int:
        return len(self._rows)

    def document(self, number: int) -> str:
        return document(self._listing(number))

    def number_of(self, asin: str) -> int | None:
        """The number of the product of that name, if there is one."""
        return self._numbers.get(asin)

    def product(self, number: int) -> Product:
        product = self.listing(number)
        # Nouns are found when a product is opened, not when it is listed or indexed: tagging takes a thousand times as long.
        return replace(product, nouns=tuple(self._nouns(product.title)))

    def _listing(self, number: int) -> Product:
        row = self._rows[number]
        asin = row["asin"]
        where = f"{self._source}: product {asin}"
        low, high = _prices(row.get("pricing"), where)
        features = row.get("small_description")
        known = entry(self._attributes, asin, dict, self._attributes_file)
        opinions = self._reviews.get(asin, {})
        return Product(
            asin=asin,
            query=field(row, "query", str, where).lower().strip(),
            product_category=field(row, "product_category", str, where),
            title=field(row, "name", str, where),
            nouns=(),
            attributes=("DUMMY_ATTR",)
            if known.get("attributes") is None
            else texts(known, "attributes", f"{self._attributes_file}: {asin}"),
            features=(features,)
            if features and isinstance(features, str)
            else texts(row, "small_description", where, needed=False),
            description=filled(row, "full_description", str, where),
            options=_options(row.get("customization_options"), where),
            price=low if high is None else low + Dice(3, number).below(1000) / 1000 * (high - low),
            price_text=f"${low}" if high is None else f"${low} to ${high}",
            rating=str(opinions.get("average_rating", "N.A.")),
            reviews=self._written(opinions, f"{self._reviews_file}: {asin}"),
        )

    def _written(self, opinions: Any, where: str) -> tuple[Review, ...]:
        reviews = filled(opinions, "reviews", list, where)
        return tuple(_review(one, f"{where}: review {number}") for number, one in enumerate(reviews))

    def goal(self, number: int) -> Goal:
        """Goal ``number`` of the original's order.

        Raises:
            IndexError: there is no such goal.
        """
        if not 0 <= number < self.goals:
            raise IndexError(number)
        index, text, attributes, options = self._goals[number]
        product = self.product(index)
        limit, limit_text = price_limit(product.price, Dice(4, number))
        return Goal.of(product, text + limit_text, attributes, options, limit)

    def instructions(self) -> list[str]:
        """Those of all goals, without their price limits."""
        return [text for _, text, _, _ in self._goals]

    def _human_goals(self, path: Path) -> list[tuple]:
        written = read_json(path, dict)
        goals = []
        for index, row in enumerate(self._rows):
            for one in entry(written, row["asin"], list, path):
                where = f"{path}: goal for {row['asin']}"
                attributes = texts(one, "instruction_attributes", where)
                text = field(one, "instruction", str, where).strip(".")
                if attributes:
                    goals.append((index, text, attributes, texts(one, "instruction_options", where)))
        return goals

    def _synthetic_goals(self) -> list[tuple]:
        goals = []
        for index, row in enumerate(self._rows):
            asin, path = row["asin"], self._attributes_file
            known = entry(self._attributes, asin, dict, path)
            attributes = texts(known, "instruction_attributes", f"{path}: {asin}", needed=False)
            if known.get("instruction") is None or not attributes:
                continue
            text = field(known, "instruction", str, f"{path}: {asin}")
            options = sorted(_options(row.get("customization_options"), f"{self._source}: product {asin}").items())
            for values in itertools.product(*(values for _, values in options)):
                wanted = tuple(zip((name for name, _ in options), values, strict=True))
                told = " with " + ", and ".join(f"{name}: {value}" for name, value in wanted) if wanted else ""
                goals.append((index, text + told, attributes, wanted))
        return goals


def spacy_nouns(model: str) -> Tagger:
    """The original's tagger: nouns and names by spaCy, in lower case.

    Raises:
        ConfigError: at the first use, if spaCy or the model is not installed.
    """

    @lru_cache(maxsize=1)
    def load() -> Any:
        try:
            import spacy

            return spacy.load(model)
        except (ImportError, OSError) as error:
            raise ConfigError(
                f"webshop: titles need spaCy's model {model!r}; pip install spacy, python -m spacy download {model}"
            ) from error

    return lambda text: [token.text.lower() for token in load()(text) if token.pos_ in _NOUNS]


def _prices(pricing: Any, where: str) -> tuple[float, float | None]:
    """``"$5.99 - $7.99"`` -> 5.99 and 7.99; one price -> it and ``None``; none -> what the original supposes."""
    if not pricing:
        return UNKNOWN_PRICE, None
    try:
        prices = [float(_NO_NUMBER.sub("", part)) for part in str(pricing).split("$")[1:]]
    except ValueError:
        prices = []
    if not prices:
        raise DataError(f"{where}: pricing {pricing!r:.60} holds no price such as $12.99; repair it or leave it empty")
    return prices[0], prices[1] if len(prices) > 1 else None


def _options(given: Any, where: str) -> dict[str, tuple[str, ...]]:
    options = {}
    if given and not isinstance(given, Mapping):
        raise DataError(f"{where}: customization_options {given!r:.60} is no object; repair it or leave it empty")
    for name, contents in (given or {}).items():
        if contents is None:
            continue
        if not isinstance(contents, list):
            raise DataError(f"{where}: option {name}: {contents!r:.60} is no list; repair it or leave it out")
        values = (field(content, "value", str, f"{where}: option {name}") for content in contents)
        options[name.lower()] = tuple(value.strip().replace("/", " | ").lower() for value in values)
    return options


def _review(row: Any, where: str) -> Review:
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: {row!r:.60} is no object with a title and a review; repair or drop it")
    title, body = filled(row, "title", str, where), filled(row, "review", str, where)
    score = row.get("score", row.get("stars"))
    if not isinstance(score, int | float | str | None):
        raise DataError(f"{where}: score {score!r:.60} is neither number nor text; repair it or leave it out")
    return Review(title, body, score or 0)
