"""WebShop as an environment: text in, text out."""

from __future__ import annotations

import os
import string
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import gymnasium

from qsft.envs.base import Environment
from qsft.envs.webshop.catalogue import GeneratedCatalogue
from qsft.envs.webshop.products import Goal
from qsft.envs.webshop.reward import reward
from qsft.envs.webshop.search import SearchEngine
from qsft.envs.webshop.session import Action, Session, Shop, parse_action
from qsft.envs.webshop.symbols import symbols
from qsft.envs.webshop.texts import NOTHING, OBSERVATIONS, action_text, chosen_text, observation_text, read_action
from qsft.errors import ConfigError

#: Which goals belong to which split: the original's.
SPLITS = {"test": (0, 500), "eval": (500, 1500), "train": (1500, None), "all": (0, None)}
GOALS = ("human", "synthetic")


class WebShop(Environment):
    """Find and buy what an instruction asks for; pages, actions, texts and reward of the original shop.

    Actions are ``search[words]`` on any page and ``click[what]``, a product's name, a button or the value of an option;
    a thought may stand before one (:mod:`qsft.data.thoughts`). What means nothing leaves the page as it is. Buying ends
    the episode; it is the only action that is rewarded, by a score in [0, 1] (see :mod:`qsft.envs.webshop.reward`).
    After ``max_turns`` actions without a purchase the episode is over as well, with 0 (``terminated``: the limit is part
    of the game). Success is a score of 1.

    Until the end ``info`` holds ``available_actions``, as the original tells them; at the end ``success``, ``goal`` and
    ``score``, the parts of the reward (``None`` if nothing was bought). ``reset(options={"goal": 17})`` pins the goal
    by its number, in whatever split it is.

    Args:
        observation: ``"text"`` or ``"text_rich"``, the original's; or ``"words"``, ours for small models: the same
            pages with less said twice, products named by their places (``click[ item 3 ]``), blanks between all tokens.
        split: which goals are drawn from: ``"train"`` (1500 and above), ``"eval"`` (500-1499), ``"test"`` (0-499), or
            ``"all"``.
        goals: ``"human"``, wordings as people use them; or ``"synthetic"``, the original's template.
        max_turns: actions an episode, at least 1. Papers use 10, 15 and 100.
        products: size of the generated catalogue, at least 2,000.
        catalogue_seed: another one makes another catalogue.
        index: folder where search indexes are kept, so that a large catalogue is indexed once; ``None`` keeps none.
        data: folder with the files of the original; its products and goals take the place of the generated ones.
        tagger: spaCy model (or a function) that finds the nouns in titles, for ``data`` alone.

    Raises:
        ConfigError: a value that is not allowed.
        DataError: ``data`` cannot be read.
    """

    name: str = "webshop"
    policies: ClassVar[dict[str, str]] = {
        "random": "qsft.envs.webshop.policies:RandomPolicy",
        "first-item": "qsft.envs.webshop.policies:FirstItemPolicy",
        "mixture": "qsft.envs.webshop.policies:MixturePolicy",
        "expert": "qsft.envs.webshop.policies:ExpertPolicy",
    }
    reset_options = ("goal",)
    thoughts: ClassVar[bool] = True
    return_range = (0.0, 1.0)

    def __init__(
        self,
        observation: str = "text",
        split: str = "train",
        goals: str = "human",
        max_turns: int = 15,
        products: int = 10_000,
        catalogue_seed: int = 0,
        index: str | os.PathLike[str] | None = None,
        data: str | os.PathLike[str] | None = None,
        tagger: str | Callable[[str], Sequence[str]] = "en_core_web_sm",
    ) -> None:
        for choice, chosen, known in (
            ("observation", observation, OBSERVATIONS),
            ("split", split, tuple(SPLITS)),
            ("goals", goals, GOALS),
        ):
            if chosen not in known:
                raise ConfigError(f"webshop: {choice}={chosen!r} is unknown; use one of {', '.join(known)}")
        for option, value in (("max_turns", max_turns), ("products", products), ("catalogue_seed", catalogue_seed)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise ConfigError(f"webshop: {option}={value!r:.60} is no whole number; write it like 10000")
        if max_turns < 1:
            raise ConfigError(f"webshop: max_turns={max_turns} must be at least 1")
        self.observation = observation
        self.max_turns = max_turns
        synthetic = goals == "synthetic"
        folder = None if index is None else os.fspath(index)
        if data is None:
            self.shop = _generated_shop(products, catalogue_seed, synthetic, folder)
        else:
            self.shop = _original_shop(os.fspath(data), synthetic, tagger, folder, _stamp(Path(data)))
        self._generated = data is None
        first, end = SPLITS[split]
        self._goals = range(self.shop.catalogue.goals)[first:end]
        if not self._goals:
            raise ConfigError(
                f"webshop: the {self.shop.catalogue.name} has {self.shop.catalogue.goals} goals, none in split {split!r}; "
                "use split='all'"
            )
        # What is said in earnest in the generated shop; step() takes any text.
        self.action_space = gymnasium.spaces.Text(max_length=1000, charset=string.printable)
        self.observation_space = gymnasium.spaces.Text(max_length=100_000, charset=string.printable)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Starts an episode; the goal is drawn uniformly from the split unless ``options`` pin it.

        Raises:
            ConfigError: unknown option, or no such goal.
        """
        number = self.pins(options).get("goal")
        goals = self.shop.catalogue.goals
        if number is not None and (isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < goals):
            raise ConfigError(f"webshop: goal {number!r:.60} is not one of this shop's, 0 to {goals - 1}")
        super().reset(seed=seed, options=options)
        drawn = self._goals[int(self.np_random.integers(len(self._goals)))]
        self.goal_number = drawn if number is None else number
        self.goal: Goal = self.shop.catalogue.goal(self.goal_number)
        self.session = Session(self.shop, self.goal.instruction)
        self._turns = 0
        return observation_text(self.session, self.observation), self._available()

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """One action.

        Raises:
            EpisodeError: the episode is over or was never started, or ``action`` is not a ``str``.
        """
        self.check_step(action)
        self._turns += 1
        session = self.session
        valid = session.act(read_action(action, session, self.observation))
        score = None
        if session.page == "done":
            assert session.product is not None
            score = reward(session.product, session.chosen, self.goal)
        total = 0.0 if score is None else score.total
        if self.observation == "words" and not valid:
            observation = NOTHING
        elif self.observation == "words" and session.set_option is not None:
            observation = chosen_text(session.set_option, session.chosen[session.set_option])
        else:
            observation = observation_text(session, self.observation, total)
        if score is None and self._turns < self.max_turns:
            return observation, 0.0, False, False, self._available()
        self._playing = False
        return observation, total, True, False, {"success": total == 1.0, "goal": self.goal_number, "score": score}

    def _available(self) -> dict[str, Any]:
        session = self.session
        actions = {"has_search_bar": session.page == "search", "clickables": list(session.clickables())}
        return {"available_actions": actions}

    def symbols(self, whole_actions: bool = False) -> list[str]:
        """The words, numbers and marks of everything that this shop can say with ``observation="words"``.

        Words of queries are those of the catalogue and the misspellings of the scripted customers.
        """
        if self.observation != "words" or not self._generated:
            raise ConfigError(
                "webshop: its texts have no closed set of symbols, but with observation='words' and the generated "
                "catalogue; else use a tokenizer of words' parts"
            )
        if whole_actions:
            raise ConfigError("webshop: a search is many words, so actions cannot be one symbol each")
        return symbols()

    def typed_action(self, text: str) -> str:
        """``"buy now"`` is a click, if that can be clicked, and anything else a search; brackets may be typed too.

        Between episodes nothing can be clicked, and a text without brackets stays as it is.
        """
        action = parse_action(text)
        if action is None or action.verb not in ("search", "click"):
            if not self._playing:
                return text
            known = read_action(f"click[{text}]", self.session, self.observation)
            if known is None:  # no action can say it: nothing, or several lines
                return text
            action = Action("click" if known.argument.lower() in self.session.clickables() else "search", text)
        return action_text(action, self.observation)


@lru_cache(maxsize=8)
def _generated_shop(products: int, seed: int, synthetic: bool, index: str | None) -> Shop:
    catalogue = GeneratedCatalogue(products, seed, synthetic)
    return Shop(catalogue, SearchEngine(catalogue, index))


def _stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, size and time of each file: what tells a changed folder."""
    files = sorted(folder.glob("*.json"))
    return tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)


@lru_cache(maxsize=2)
def _original_shop(
    folder: str,
    synthetic: bool,
    tagger: str | Callable[[str], Sequence[str]],
    index: str | None,
    stamp: tuple[tuple[str, int, int], ...],
) -> Shop:
    """Read once as long as its files stay as they are (``stamp``)."""
    from qsft.envs.webshop.original import OriginalCatalogue

    catalogue = OriginalCatalogue(folder, synthetic, tagger)
    return Shop(catalogue, SearchEngine(catalogue, index))
