"""Plain statements about the objects of Twenty Questions, for a language model that has not seen a game.

They hold the game's words and what is true of the objects, and nothing of how it is played: every statement is drawn by
itself, so neither what is asked first nor what follows an answer can be learnt from them.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from functools import cache
from importlib.resources import files

import numpy as np

from qsft.data.trajectory import AGENT_ROLE, Trajectory, Turn
from qsft.envs.twenty_questions.env import objects_world

STATEMENTS_A_TEXT = 6
_PRONOUN = re.compile(r"\b(the object|its|it)\b")


def corpus(texts: int, seed: int = 0) -> Iterator[Trajectory]:
    """Texts of six statements on a line; each is a trajectory of one agent turn with reward 0.

    Half of the statements are questions about an object by name with their answer, yes and no alike often
    (``"Does a cat have fur? Yes."``); the others are, in equal shares, an object's category (``"A cat belongs to the
    mammals."``), two of its names (``"Another name for a cat is a kitty."``), and questions and guesses of the game
    without an answer, drawn evenly among all of them (``"Is it made of metal?"``).

    Args:
        texts: how many.
        seed: the first n texts are the same however many are asked for.
    """
    rng = np.random.default_rng(seed)
    kinds: list[Callable[[np.random.Generator], str]] = [_answered, _answered, _answered, _category, _names, _question]
    for _ in range(texts):
        said = [kinds[int(kind)](rng) for kind in rng.integers(len(kinds), size=STATEMENTS_A_TEXT)]
        yield Trajectory([Turn(AGENT_ROLE, " ".join(said) + "\n", 0.0)], "terminated")


def about(question: str, phrase: str) -> str:
    """A question of the game with an object's phrase in place of the pronoun: ``"Does a cat have fur?"``."""
    return _PRONOUN.sub(lambda found: phrase + ("'s" if found[0] == "its" else ""), question, count=1)


def _answered(rng: np.random.Generator) -> str:
    world = objects_world()
    item = int(rng.integers(len(world.items)))
    answers = world.outcomes[: len(world.questions), item]
    answer = int(rng.integers(2))
    question = world.questions[int(rng.choice(np.flatnonzero(answers == answer)))]
    forms = tuple(form for form in question.forms if _PRONOUN.search(form))
    return f"{about(_one(rng, forms), _one(rng, world.items[item].phrases))} {question.replies[answer]}"


def _category(rng: np.random.Generator) -> str:
    world = objects_world()
    item = int(rng.integers(len(world.items)))
    return f"{_capital(_one(rng, world.items[item].phrases))} belongs to the {_categories()[item]}."


def _names(rng: np.random.Generator) -> str:
    world = objects_world()
    several = [item.phrases for item in world.items if len(item.phrases) > 1]
    one, other = rng.permutation(several[int(rng.integers(len(several)))])[:2]
    return f"Another name for {one} is {other}."


def _question(rng: np.random.Generator) -> str:
    world = objects_world()
    return _one(rng, world.forms(int(rng.integers(len(world.outcomes)))))


@cache
def _categories() -> list[str]:
    text = files("qsft.envs.twenty_questions").joinpath("objects.tsv").read_text(encoding="utf-8")
    return [row["category"] for row in csv.DictReader(text.splitlines(), delimiter="\t")]


def _one(rng: np.random.Generator, choices: tuple[str, ...]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _capital(phrase: str) -> str:
    return phrase[0].upper() + phrase[1:]
