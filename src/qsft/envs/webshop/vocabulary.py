"""The words of which the embedded catalogue is made: our own lists, in the files beside this one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Category:
    """What the products of one department have in common."""

    name: str
    department: str
    attributes: tuple[str, ...]
    materials: tuple[str, ...]
    uses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of product: what one would search for, what it is called, what it costs, what can be chosen.

    Args:
        options: name of the option -> name of the pool that its values are from.
    """

    category: Category
    shelf: str
    query: str
    noun: str
    low: int
    high: int
    options: dict[str, str]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """All lists."""

    categories: dict[str, Category]
    kinds: tuple[Kind, ...]
    pools: dict[str, tuple[str, ...]]
    brands: tuple[str, ...]


@cache
def vocabulary() -> Vocabulary:
    """The lists, read once."""
    categories = {}
    for name, department, attributes, materials, uses in _rows("categories.tsv"):
        categories[name] = Category(name, department, _list(attributes), _list(materials), _list(uses))
    pools = {name: _list(values) for name, values in _rows("values.tsv")}
    kinds = []
    for category, shelf, query, noun, low, high, options in _rows("types.tsv"):
        pairs = dict(option.split(":") for option in options.split(","))
        kinds.append(Kind(categories[category], shelf, query, noun, int(low), int(high), pairs))
    brands = tuple(_text("brands.txt").split())
    return Vocabulary(categories, tuple(kinds), pools, brands)


def misspelt(word: str) -> str:
    """A word with two letters in the wrong order, always the same two; short words are spelt right."""
    if len(word) < 5 or not word.isalpha():
        return word
    first = 1 if word[1] != word[2] else 2
    return word[:first] + word[first + 1] + word[first] + word[first + 2 :]


def _rows(name: str) -> list[list[str]]:
    return [line.split("\t") for line in _text(name).splitlines()[1:]]


def _list(cell: str) -> tuple[str, ...]:
    return tuple(cell.split(","))


def _text(name: str) -> str:
    return files("qsft.envs.webshop").joinpath(name).read_text(encoding="utf-8")
