"""Guess My City as an environment: text in, text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, ClassVar

from qsft.envs.twenty_questions.game import QuestionGame
from qsft.envs.twenty_questions.oracles import Oracle
from qsft.envs.twenty_questions.rules import STARTS
from qsft.envs.twenty_questions.world import Item, World, load_world

GUESS_FORMS = ("Is it {}?", "Are you from {}?", "Is your city {}?")


class GuessMyCity(QuestionGame):
    """Find out in twenty questions which of 96 cities a person is from; after LMRL-Gym's game (see its README).

    A question is a line. Yes-or-no questions, ``"Is your city a capital?\\n"``, are answered ``"Yes.\\n"`` or
    ``"No.\\n"``; open ones, ``"What continent is your city on?\\n"``, by a short sentence, ``"It is in Europe.\\n"``.
    Each costs 1, except the one that ends in the name of the city and is answered Yes. So a game won at question k
    returns ``1 - k`` and a lost one ``-20``. A malformed question is answered No.

    At the end ``info`` holds ``success`` and ``city``. ``reset(options={"city": "Paris"})`` pins the city.

    Args:
        oracle: who answers: ``"table"``, our own table; or as for
            :class:`~qsft.envs.twenty_questions.env.TwentyQuestions` (a model answers Yes or No to everything).

    Raises:
        ConfigError: a value that is not allowed.
    """

    name: str = "guess-my-city"
    sought: ClassVar[str] = "city"
    starts: ClassVar[tuple[str, ...]] = (*STARTS, "Was", "Did", "Has", "What", "Which", "How", "Where")
    policies: ClassVar[dict[str, str]] = {
        "random": "qsft.envs.twenty_questions.policies:RandomPolicy",
        "population": "qsft.envs.guess_my_city.policies:CityPopulationPolicy",
        "greedy-information": "qsft.envs.twenty_questions.policies:GreedyInformationPolicy",
    }
    reset_options = ("city",)

    def __init__(self, oracle: str | Mapping[str, Any] | Oracle = "table") -> None:
        super().__init__(cities_world(), None, oracle, None)


@cache
def cities_world() -> World:
    """Our own world: ``cities.tsv`` and ``questions.tsv``."""
    folder = files("qsft.envs.guess_my_city")
    cities, questions = (folder.joinpath(f"{name}.tsv").read_text(encoding="utf-8") for name in ("cities", "questions"))
    return load_world(cities, questions, GUESS_FORMS, _city)


def _city(names: Sequence[str], row: Mapping[str, str]) -> Item:
    """Spoken of by name; understood with the country as well, as the original has it: "Paris, France"."""
    return Item(tuple(names), (*names, *(f"{name}, {row['country']}" for name in names)))
