"""A visit to the shop: which page one is on, and what a search or a click does. Page flow of the original."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import NamedTuple

from qsft.envs.webshop.catalogue import Catalogue
from qsft.envs.webshop.products import Product
from qsft.envs.webshop.search import SearchEngine

#: Products on a page of results.
PAGE = 10
BACK, PREVIOUS, NEXT, BUY = "Back to Search", "< Prev", "Next >", "Buy Now"
SUB_PAGES = ("Description", "Features", "Reviews")


class Action(NamedTuple):
    """``search[...]`` or ``click[...]``; any other verb does nothing."""

    verb: str
    argument: str


def parse_action(text: str) -> Action | None:
    """The verb and what stands in the brackets; ``None`` where there are none.

    It is the original's ``(.+)\\[(.+)\\]``, matched at the start, greedily, within the first line: the brackets are the
    last that can be, and what follows them does not matter. By hand, because that pattern takes a time that grows with
    the square of a long text.
    """
    line = text.split("\n", 1)[0]
    end = line.rfind("]")
    start = line.rfind("[", 1, max(end - 1, 0))
    return Action(line[:start], line[start + 1 : end]) if start > 0 else None


@dataclass(slots=True)
class Shop:
    """A catalogue and the engine that searches it."""

    catalogue: Catalogue
    engine: SearchEngine


@dataclass(slots=True)
class Session:
    """One customer's visit.

    Args:
        shop: where.
        instruction: what every page repeats.

    Attributes:
        page: ``"search"``, ``"results"``, ``"item"``, one of ``SUB_PAGES``, or ``"done"``.
        query: the words of the last search.
        results: numbers of the products it found.
        number: which page of these, from 1.
        listed_again: whether this page of this query was shown before.
        product: the product that one looks at.
        chosen: its options that were chosen, name -> value.
        set_option: name of the option that the last action chose, if it chose one.
        seen: names of the products that were opened since the start or the last Back to Search.
    """

    shop: Shop
    instruction: str
    page: str = "search"
    query: str = ""
    results: tuple[int, ...] = ()
    number: int = 0
    listed_again: bool = False
    product: Product | None = None
    chosen: dict[str, str] = field(default_factory=dict)
    set_option: str | None = None
    seen: set[str] = field(default_factory=set)
    _listed: set[tuple[str, int]] = field(default_factory=set)

    def act(self, action: Action | None) -> bool:
        """Does it (the argument is understood in lower case); ``False`` if it means nothing here."""
        self.set_option = None
        if action is None or self.page == "done":
            return False
        argument = action.argument.lower()
        if action.verb == "search":
            self._search(argument)
            return True
        if action.verb != "click" or argument == "search":
            return False
        clickables = self.clickables()
        if argument not in clickables:
            return False
        self._click(argument, clickables[argument])
        return True

    def listed(self) -> list[Product]:
        """The products on the present page of results."""
        return [self.shop.catalogue.listing(number) for number in self._numbers()]

    def _numbers(self) -> tuple[int, ...]:
        return self.results[(self.number - 1) * PAGE : self.number * PAGE]

    def buttons(self) -> list[str]:
        """The buttons of the page as they are labelled, in the order of the page."""
        if self.page == "search":
            return ["Search"]
        if self.page == "results":
            return [BACK, *([PREVIOUS] if self.number > 1 else []), NEXT]
        if self.page == "item":
            return [BACK, PREVIOUS, *SUB_PAGES, BUY]
        return [] if self.page == "done" else [BACK, PREVIOUS]

    def clickables(self) -> dict[str, int | str | None]:
        """What can be clicked, as actions name it -> number of the product it opens, option it sets, or ``None``."""
        found: dict[str, int | str | None] = {button.lower(): None for button in self.buttons()}
        if self.page == "results":
            listing = self.shop.catalogue.listing
            found.update((listing(number).asin.lower(), number) for number in self._numbers())
        elif self.page == "item" and self.product is not None:
            for name, values in self.product.options.items():
                found.update(dict.fromkeys(values, name))
        return found

    def was_clicked(self, value: str) -> bool:
        """Is the label of an option shown as clicked? The original looks for it in the page's address."""
        return f'"{value}"' in f"{self.query.replace(' ', '+')}/{self.number}/{json.dumps(self.chosen)}"

    def _search(self, query: str) -> None:
        self.query = query
        self.results = self.shop.engine.find(query)
        self._list(1)

    def _list(self, number: int) -> None:
        self.page, self.number, self.product, self.chosen = "results", number, None, {}
        self.listed_again = (self.query, number) in self._listed
        self._listed.add((self.query, number))

    def _click(self, argument: str, target: int | str | None) -> None:
        # By name, in the order of the original: an option that is called like a button acts as the button.
        if argument == BUY.lower():
            self.page = "done"
        elif argument == BACK.lower():
            self.page, self.query, self.results, self.number = "search", "", (), 0
            self.product, self.chosen, self.seen = None, {}, set()
        elif argument == NEXT.lower() and self.page == "results":
            self._list(self.number + 1)
        elif argument == PREVIOUS.lower() and self.page in ("results", "item"):
            self._list(self.number - (self.page == "results"))
        elif argument in _SUB_PAGES:
            self.page = _SUB_PAGES[argument]
        else:
            self.page = "item"
            if isinstance(target, int):
                self.product = self.shop.catalogue.product(target)
                self.seen.add(self.product.asin)
            elif target is not None:
                self.chosen[target] = argument
                self.set_option = target


_SUB_PAGES = {name.lower(): name for name in SUB_PAGES}
