"""The original's own files, read from a user's folder: its products, goals and attributes, and its human trajectories.

None of them comes with qsft. Everything is held in memory, as in the original.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from qsft.data.trajectory import AGENT_ROLE, Trajectory, Turn
from qsft.envs.webshop.catalogue import Dice, document, price_limit
from qsft.envs.webshop.products import NO_PRICE_LIMIT, UNKNOWN_PRICE, Goal, Product, Review
from qsft.envs.webshop.reward import reward
from qsft.envs.webshop.session import BACK, BUY, PREVIOUS, SUB_PAGES, parse_action
from qsft.errors import ConfigError, DataError

Tagger = Callable[[str], Sequence[str]]
T = TypeVar("T")

#: What each file may be called; the first that is there is read.
PRODUCTS = ("items_shuffle.json", "items_shuffle_1000.json")
ATTRIBUTES = ("items_ins_v2.json", "items_ins_v2_1000.json")
HUMAN_GOALS = ("items_human_ins.json",)
REVIEWS = ("reviews.json",)
# The original shuffles its goals with this seed; so their numbers, and the splits, are the same here.
_SHUFFLE = 233
_NO_NUMBER = re.compile(r"[^\d.]")
_LIMIT = re.compile(r", and price lower than ([\d.]+) dollars")
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
        source = _found(path, PRODUCTS)
        self.key = f"original-{source.stat().st_size}-{source.stat().st_mtime_ns}"
        self._attributes = _read(path, ATTRIBUTES, dict)
        reviews = _read(path, REVIEWS, list) if (path / REVIEWS[0]).exists() else []
        where = f"{path / REVIEWS[0]}: row"
        self._reviews = {_field(row, "asin", str, f"{where} {number}"): row for number, row in enumerate(reviews)}
        self._rows: list[Mapping[str, Any]] = []
        self._numbers: dict[str, int] = {}
        for number, row in enumerate(_read(path, PRODUCTS, list)):
            asin = _field(row, "asin", str, f"{source}: product {number}")
            if asin != "nan" and len(asin) <= 10 and asin not in self._numbers:
                self._numbers[asin] = len(self._rows)
                self._rows.append(row)
        if not self._rows:
            raise DataError(f"{source}: holds no product; is it the right file?")
        self.product = lru_cache(maxsize=1 << 16)(self._product)
        self._goals = self._synthetic_goals() if synthetic else self._human_goals(_read(path, HUMAN_GOALS, dict))
        random.Random(_SHUFFLE).shuffle(self._goals)
        self.goals = len(self._goals)

    def __len__(self) -> int:
        return len(self._rows)

    def document(self, number: int) -> str:
        return document(self._untagged(number))

    def number_of(self, asin: str) -> int | None:
        """The number of the product of that name, if there is one."""
        return self._numbers.get(asin)

    def _product(self, number: int) -> Product:
        product = self._untagged(number)
        # Nouns are found when a product is shown, not when it is indexed: tagging takes a thousand times as long.
        return replace(product, nouns=tuple(self._nouns(product.title)))

    def _untagged(self, number: int) -> Product:
        row = self._rows[number]
        asin = row["asin"]
        where = f"product {asin}"
        low, high = _prices(row.get("pricing"), where)
        features = row.get("small_description")
        known = self._attributes.get(asin, {})
        opinions = self._reviews.get(asin, {})
        return Product(
            asin=asin,
            query=_field(row, "query", str, where).lower().strip(),
            product_category=_field(row, "product_category", str, where),
            title=_field(row, "name", str, where),
            nouns=(),
            attributes=("DUMMY_ATTR",)
            if known.get("attributes") is None
            else tuple(_field(known, "attributes", list, where)),
            features=(features,)
            if features and isinstance(features, str)
            else tuple(_filled(row, "small_description", list, where)),
            description=_filled(row, "full_description", str, where),
            options=_options(row.get("customization_options"), where),
            price=low if high is None else low + Dice(3, number).below(1000) / 1000 * (high - low),
            price_text=f"${low}" if high is None else f"${low} to ${high}",
            rating=str(opinions.get("average_rating", "N.A.")),
            reviews=tuple(_review(one) for one in _filled(opinions, "reviews", list, where)),
        )

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

    def _human_goals(self, written: Mapping[str, Any]) -> list[tuple]:
        goals = []
        for index, row in enumerate(self._rows):
            for one in written.get(row["asin"], ()):
                where = f"goal for {row['asin']}"
                attributes = tuple(_field(one, "instruction_attributes", list, where))
                text = _field(one, "instruction", str, where).strip(".")
                if attributes:
                    goals.append((index, text, attributes, tuple(_field(one, "instruction_options", list, where))))
        return goals

    def _synthetic_goals(self) -> list[tuple]:
        goals = []
        for index, row in enumerate(self._rows):
            known = self._attributes.get(row["asin"], {})
            attributes = tuple(_filled(known, "instruction_attributes", list, row["asin"]))
            text = known.get("instruction")
            if text is None or not attributes:
                continue
            options = sorted(_options(row.get("customization_options"), row["asin"]).items())
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


def human_trajectories(
    path: str | os.PathLike[str], catalogue: OriginalCatalogue, unknown: str = "raise"
) -> Iterator[Trajectory]:
    """The original's recorded human shopping (``il_trajs_finalized_images.jsonl``) as trajectories.

    The recorded states are the observations, as they are (mode "text_rich"). The recording holds no scores: each
    purchase is judged anew, by the goal with the same instruction and the price limit that the instruction tells.
    Metadata: ``env``, ``policy`` (``"human"``), ``goal``, ``success``.

    Args:
        path: one JSON object a line, with ``states`` and ``actions``.
        catalogue: with human goals; it must hold what was bought.
        unknown: what to do with an episode whose goal or purchase is not in the catalogue: ``"raise"`` or ``"skip"``.

    Raises:
        DataError: a line that cannot be read, or an unknown goal or product.
    """
    if unknown not in ("raise", "skip"):
        raise ConfigError(f"webshop: unknown={unknown!r}; use 'raise' or 'skip'")
    goals: dict[str, int] = {}
    for goal, text in enumerate(catalogue.instructions()):
        goals.setdefault(_plain(text), goal)
    with open(path, encoding="utf-8") as file:
        for line_number, line in enumerate(file, start=1):
            where = f"{os.fspath(path)}: line {line_number}"
            try:
                row = json.loads(line)
            except ValueError:
                raise DataError(f"{where}: not JSON; give the original's il_trajs_finalized_images.jsonl") from None
            states, actions = _field(row, "states", list, where), _field(row, "actions", list, where)
            if not actions or not len(actions) <= len(states) <= len(actions) + 1:
                raise DataError(f"{where}: {len(states)} states for {len(actions)} actions; repair or drop the line")
            number = goals.get(_plain(_instruction(states[0])))
            score, problem = None, "its goal is none of the catalogue's"
            if number is not None:
                score, problem = _score(catalogue, number, states[0], actions)
            if number is None or score is None:
                if unknown == "skip":
                    continue
                raise DataError(f"{where}: {problem}; load the whole catalogue, or pass unknown='skip'")
            yield _trajectory(states, actions, number, score)


def _trajectory(states: list[str], actions: list[str], goal: int, score: float) -> Trajectory:
    turns = []
    for state, action in zip(states, actions, strict=False):
        turns += [Turn("user", state), Turn(AGENT_ROLE, action, 0.0)]
    turns[-1] = Turn(AGENT_ROLE, actions[-1], score)
    turns += [Turn("user", state) for state in states[len(actions) :]]
    bought = _verb_and_argument(actions[-1]) == ("click", BUY.lower())
    metadata = {"env": "webshop", "policy": "human", "goal": goal, "success": score == 1.0}
    return Trajectory(turns, "terminated" if bought else "truncated", metadata)


def _score(catalogue: OriginalCatalogue, goal_number: int, first: str, actions: list[str]) -> tuple[float | None, str]:
    """What the purchase at the end was worth (0 without one); else ``None`` and why that is unknown."""
    product: Product | None = None
    chosen: dict[str, str] = {}
    reading = False  # on a sub-page
    for action in actions:
        verb, argument = _verb_and_argument(action)
        if verb == "click" and argument == BUY.lower():
            break
        item = catalogue.number_of(argument.upper())
        if verb == "search" or argument == BACK.lower() or (argument == PREVIOUS.lower() and not reading):
            product, chosen = None, {}
        elif item is not None:
            product, chosen = catalogue.product(item), {}
        elif product is not None:
            names = [name for name, values in product.options.items() if argument in values]
            if names:
                chosen[names[-1]] = argument
        reading = argument in _SUB_PAGES
    else:
        return 0.0, ""
    if product is None:
        return None, "what was bought is not in the catalogue"
    found = _LIMIT.search(first)
    goal = catalogue.goal(goal_number)
    limit = float(found[1]) if found else NO_PRICE_LIMIT
    return reward(product, chosen, replace(goal, price_upper=limit)).total, ""


def _verb_and_argument(text: str) -> tuple[str, str]:
    action = parse_action(text)
    return (action.verb, action.argument.lower()) if action else ("", "")


def _instruction(state: str) -> str:
    """The instruction in a recorded first page; its title was another one in early recordings."""
    after = state.split("Instruction:", 1)[-1]
    return after.split("[button]", 1)[0]


def _plain(instruction: str) -> str:
    """What the original compares of two instructions."""
    text = instruction.lower().replace('"', "").replace("'", "").split(", and price lower than")[0]
    return text.strip().strip(".")


def _found(folder: Path, names: Sequence[str]) -> Path:
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise DataError(f"{folder}: there is no {' or '.join(names)}; give the folder of the original's data")


def _read(folder: Path, names: Sequence[str], kind: type) -> Any:
    path = _found(folder, names)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}); download it again") from error
    if not isinstance(content, kind):
        raise DataError(f"{path}: must be a JSON {'list' if kind is list else 'object'}; is it the right file?")
    return content


def _field(row: Any, name: str, kind: type, where: str) -> Any:
    value = row.get(name) if isinstance(row, Mapping) else None
    if not isinstance(value, kind):
        raise DataError(f"{where}: field {name!r} is missing or is no {kind.__name__}; repair it or drop the row")
    return value


def _filled(row: Any, name: str, kind: type[T], where: str) -> T:
    """As :func:`_field`; one that is missing, null or empty in another way is empty."""
    if isinstance(row, Mapping) and not row.get(name):
        return kind()
    value: T = _field(row, name, kind, where)
    return value


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
        values = (_field(content, "value", str, f"{where}: option {name}") for content in contents)
        options[name.lower()] = tuple(value.strip().replace("/", " | ").lower() for value in values)
    return options


def _review(row: Any) -> Review:
    if not isinstance(row, Mapping):
        raise DataError(f"review {row!r:.60} is no object with a title and a review; repair or drop it")
    return Review(row.get("title", ""), row.get("review", ""), row.get("score", row.get("stars", 0)))


_SUB_PAGES = {page.lower() for page in SUB_PAGES}
