"""Scripted customers. They read what any player reads, and know nothing of how a purchase is judged.

A customer walks through the shop along with the history that it is given (the pages follow from the actions), so it
plays in every observation mode and on every catalogue.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from qsft.envs.webshop.env import WebShop
from qsft.envs.webshop.products import Product
from qsft.envs.webshop.session import BACK, BUY, NEXT, PREVIOUS, SUB_PAGES, Action, Session
from qsft.envs.webshop.texts import read_action, read_instruction, written_action
from qsft.envs.webshop.vocabulary import misspelt

if TYPE_CHECKING:
    from qsft.data.trajectory import Trajectory

_LIMIT = re.compile(r", and price lower than ([\d.]+) dollars")
_WORD = re.compile(r"[^\W_]+(?:[.'][^\W_]+)*")
_EMPTY = (
    "i a an am and are as at be buy by can find for from get have help i'm in is it like looking me my need of on or "
    "please some that the there this to want which will with would you"
)
_EMPTY_WORDS = frozenset(_EMPTY.split())


def words_of(text: str) -> list[str]:
    """The words and numbers of a text in lower case."""
    return _WORD.findall(text.lower())


class Visit:
    """A session, and what the customer has read in it.

    Attributes:
        wanted: the words of the instruction that mean something, in order.
        limit: what the purchase may cost.
        turn: number of actions so far.
        read: name of each product that was opened -> all words read on its pages.
        looked: names of the products whose page Features was read.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        found = _LIMIT.search(session.instruction.replace(" ,", ","))
        self.limit = float(found[1]) if found else float("inf")
        said = session.instruction.replace(" ,", ",")[: found.start() if found else None]
        self.wanted = [word for word in dict.fromkeys(words_of(said)) if word not in _EMPTY_WORDS]
        self.turn = 0
        self.read: dict[str, set[str]] = {}
        self.looked: set[str] = set()

    def act(self, action: Action | None) -> None:
        """Does it and reads the page."""
        self.session.act(action)
        self.turn += 1
        product = self.session.product
        if product is None:
            return
        read = self.read.setdefault(product.asin, set(words_of(product.title)))
        if self.session.page == "item":
            read.update(word for values in product.options.values() for value in values for word in words_of(value))
        elif self.session.page == "Features":
            read.update(words_of(" ".join(product.features)))
            self.looked.add(product.asin)

    def missing(self, asin: str) -> int:
        """How many of the wanted words were not read on the pages of a product."""
        return sum(word not in self.read[asin] for word in self.wanted)

    def affordable(self, product: Product) -> bool:
        """By the highest price that its page names."""
        return float(product.price_text.split("$")[-1]) <= self.limit

    def fitting(self, products: Iterable[Product]) -> list[Product]:
        """The affordable first, then those with the most wanted words in the title, then in the order of the page."""

        def fit(product: Product) -> tuple[bool, int]:
            title = set(words_of(product.title))
            return not self.affordable(product), -sum(word in title for word in self.wanted)

        return sorted(products, key=fit)

    def options_left(self) -> list[tuple[str, str]]:
        """Options of the present product whose value is in the instruction and is not chosen yet."""
        product, chosen = self.session.product, self.session.chosen
        assert product is not None
        left = []
        for name, values in product.options.items():
            named = [value for value in values if all(word in self.wanted for word in words_of(value))]
            if named and chosen.get(name) != named[0]:
                left.append((name, named[0]))
        return left


class Customer(ABC):
    """A policy that walks along with each history and then chooses one action.

    Args:
        environment: the shop and the observation mode; nothing of an episode is looked at.
    """

    name: str

    def __init__(self, environment: WebShop) -> None:
        self.shop = environment.shop
        self.mode = environment.observation
        self.max_turns = environment.max_turns
        self.seed(0)

    def seed(self, seed: int) -> None:
        """The same seed and the same history give the same action, whatever was asked before."""
        self._seed = seed

    def act(self, histories: Sequence[Trajectory]) -> list[str]:
        """One action a history.

        Raises:
            DataError: a history that did not begin in a shop with these options.
        """
        return [self._next(history) for history in histories]

    def _next(self, history: Trajectory) -> str:
        first = history.turns[0].text
        visit = Visit(Session(self.shop, read_instruction(first, self.mode)))
        for turn in history.agent_turns:
            visit.act(read_action(turn.text, visit.session, self.mode))
        key = f"{self._seed} {first}"
        action = self.choose(visit, Random(key), Random(f"{visit.turn} {key}"))
        return written_action(action, visit.session, self.mode)

    @abstractmethod
    def choose(self, visit: Visit, person: Random, moment: Random) -> Action:
        """The next action.

        Args:
            visit: where the customer is and what it has read.
            person: draws that are the same in all turns of an episode.
            moment: draws of this turn.
        """


class RandomPolicy(Customer):
    """Searches for some of the wanted words, clicks on anything."""

    name = "random"

    def choose(self, visit: Visit, person: Random, moment: Random) -> Action:
        if visit.session.page == "search":
            return search([word for word in visit.wanted if moment.random() < 0.5] or visit.wanted)
        return Action("click", moment.choice(list(visit.session.clickables())))


class FirstItemPolicy(Customer):
    """The rule of the original: search for the whole instruction, open the first product, buy it."""

    name = "first-item"

    def choose(self, visit: Visit, person: Random, moment: Random) -> Action:
        session = visit.session
        if session.page == "search":
            return Action("search", session.instruction)
        if session.page == "results" and session.listed():
            return Action("click", session.listed()[0].asin.lower())
        return click(BUY if session.page == "item" else BACK)


class ExpertPolicy(Customer):
    """Searches for all that is wanted, compares several products down to their features, chooses the options."""

    name = "expert"
    compared = 4  # products that it opens at most

    def choose(self, visit: Visit, person: Random, moment: Random) -> Action:
        session = visit.session
        if session.page == "search":
            return search(visit.wanted)
        if session.page == "results":
            return self._open(visit)
        if session.page in SUB_PAGES:
            return click(PREVIOUS)
        product = session.product
        assert product is not None
        missing = visit.missing(product.asin)
        decided = self._decided(visit) or (not missing and visit.affordable(product))
        if missing and product.asin not in visit.looked and not decided:
            return click("Features")
        if decided and (missing == min(map(visit.missing, visit.read)) or self._late(visit)):
            left = visit.options_left()
            return Action("click", left[0][1]) if left else click(BUY)
        return click(PREVIOUS)

    def _open(self, visit: Visit) -> Action:
        """The next product to compare; once that is over, the best of those."""
        listed = visit.session.listed()
        if not listed:
            return click(BACK)
        fresh = [product for product in listed if product.asin not in visit.read and visit.affordable(product)]
        if not fresh or self._decided(visit):
            known = [product for product in visit.fitting(listed) if product.asin in visit.read]
            best = min(known, key=lambda product: visit.missing(product.asin)) if known else visit.fitting(listed)[0]
            return Action("click", best.asin.lower())
        return Action("click", visit.fitting(fresh)[0].asin.lower())

    def _decided(self, visit: Visit) -> bool:
        return len(visit.looked) >= self.compared or self._late(visit)

    def _late(self, visit: Visit) -> bool:
        return visit.turn >= self.max_turns - 5


@dataclass(frozen=True, slots=True)
class Skill:
    """How one customer of the population behaves.

    Args:
        words: share of the wanted words that it searches for.
        typo: share of these that it misspells.
        choice: how often it opens the product that fits best; else any of the page, or it turns the page.
        reading: how often it looks at another page of a product before it goes on.
        doubt: how often it goes back to the results from a product that lacks wanted words.
        options: how often it chooses an option that is asked for.
        slip: how often the value that it chooses is another one.
    """

    words: float
    typo: float
    choice: float
    reading: float
    doubt: float
    options: float
    slip: float


class MixturePolicy(Customer):
    """The population whose shopping is the training data; each episode is that of one customer, good, fair or poor."""

    name = "mixture"
    #: share of the population -> its skill; together a mean score near .55, that of the paper's SFT
    SKILLS = (
        (0.17, Skill(words=1.0, typo=0.02, choice=0.95, reading=0.25, doubt=0.5, options=0.97, slip=0.03)),
        (0.30, Skill(words=0.65, typo=0.15, choice=0.45, reading=0.15, doubt=0.15, options=0.5, slip=0.25)),
        (0.53, Skill(words=0.35, typo=0.35, choice=0.1, reading=0.1, doubt=0.05, options=0.25, slip=0.6)),
    )

    def choose(self, visit: Visit, person: Random, moment: Random) -> Action:
        skill = self._skill(person.random())
        session = visit.session
        if visit.turn >= self.max_turns - 2 and session.page == "item":
            return click(BUY)
        if session.page == "search":
            kept = [word for word in visit.wanted if moment.random() < skill.words] or visit.wanted[-2:]
            return search([misspelt(word) if moment.random() < skill.typo else word for word in kept])
        if session.page == "results":
            return self._open(visit, skill, moment)
        if session.page in SUB_PAGES:
            return click(PREVIOUS)
        return self._at_product(visit, skill, moment)

    def _skill(self, draw: float) -> Skill:
        for share, skill in self.SKILLS:
            draw -= share
            if draw < 0:
                return skill
        return self.SKILLS[-1][1]

    def _open(self, visit: Visit, skill: Skill, moment: Random) -> Action:
        listed = visit.session.listed()
        if not listed:
            return click(BACK)
        if moment.random() < skill.choice:
            fresh = [product for product in listed if product.asin not in visit.read]
            return Action("click", visit.fitting(fresh or listed)[0].asin.lower())
        if moment.random() < 0.1:
            return click(NEXT)
        return Action("click", moment.choice(listed).asin.lower())

    def _at_product(self, visit: Visit, skill: Skill, moment: Random) -> Action:
        product, chosen = visit.session.product, visit.session.chosen
        assert product is not None
        fresh = not chosen and product.asin not in visit.looked
        if fresh and moment.random() < skill.reading:
            return click(moment.choice(SUB_PAGES))
        if not chosen and visit.missing(product.asin) and moment.random() < skill.doubt:
            return click(PREVIOUS)
        for name, value in visit.options_left():
            # What was chosen wrongly is not noticed.
            if name not in chosen and moment.random() < skill.options:
                slips = moment.random() < skill.slip
                return Action("click", moment.choice(product.options[name]) if slips else value)
        return click(BUY)


def search(words: Sequence[str]) -> Action:
    """A search for these words."""
    return Action("search", " ".join(words) or "gift")


def click(button: str) -> Action:
    """A click on a button."""
    return Action("click", button.lower())
