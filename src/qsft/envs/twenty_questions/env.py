"""Twenty Questions as an environment: text in, text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, ClassVar

from qsft.envs.twenty_questions.game import QuestionGame, known_nouns
from qsft.envs.twenty_questions.oracles import Oracle
from qsft.envs.twenty_questions.rules import Tagger, tokens
from qsft.envs.twenty_questions.world import Item, World, load_world
from qsft.errors import ConfigError

if TYPE_CHECKING:
    from qsft.envs.base import BlockPlayer
    from qsft.policies.base import Policy

GUESS_FORMS = ("Is it {}?", "Is the object {}?", "Could it be {}?")


class TwentyQuestions(QuestionGame):
    """Find one of 158 objects in twenty questions; rules and texts of LMRL-Gym (its README tells the differences).

    A question is a line, ``"Is it an animal?\\n"``, and is answered ``"Yes.\\n"`` or ``"No.\\n"``. Each costs 1, except
    the one that is the right guess: it ends in a name of the object, holds no other noun, and is answered Yes. So a
    game won at question k returns ``1 - k`` and a lost one ``-20``. A malformed question is answered No.

    At the end ``info`` holds ``success`` and ``object``. ``reset(options={"object": "cat"})`` pins the object.

    Args:
        oracle: who answers. ``"table"``: our own table of 158 objects x 158 attributes. A mapping: a model behind an
            OpenAI-compatible endpoint, ``{"base_url": ..., "model": ...}`` and what else
            :class:`~qsft.envs.twenty_questions.oracles.Endpoint` takes. A callable ``(names, question) -> answer``:
            such as :class:`~qsft.envs.twenty_questions.oracles.ModelOracle` around a local model.
        objects: other objects than ours, each ``"Name;Other name"``; they need another oracle than the table.
        nouns: a noun tagger, ``tokens -> those that are nouns``. Default: the words of the objects' names and the nouns
            of the table's questions are the nouns.

    Raises:
        ConfigError: a value that is not allowed.
    """

    name: str = "twenty-questions"
    sought: ClassVar[str] = "object"
    policies: ClassVar[dict[str, str]] = {
        "random": "qsft.envs.twenty_questions.policies:RandomPolicy",
        "population": "qsft.envs.twenty_questions.policies:PopulationPolicy",
        "greedy-information": "qsft.envs.twenty_questions.policies:GreedyInformationPolicy",
    }
    reset_options = ("object",)

    def __init__(
        self,
        oracle: str | Mapping[str, Any] | Oracle = "table",
        objects: Sequence[str] | None = None,
        nouns: Tagger | None = None,
    ) -> None:
        if isinstance(objects, str):
            raise ConfigError(f"twenty-questions: objects={objects!r:.60} is a text; give a list of objects")
        if not (nouns is None or callable(nouns)):
            raise ConfigError(f"{self.name}: nouns={nouns!r:.60} is no function from tokens to those that are nouns")
        self._own_nouns = nouns is None
        items = None if objects is None else [_item(number, text) for number, text in enumerate(objects, start=1)]
        if items is not None and not items:
            raise ConfigError("twenty-questions: objects is empty; give at least one")
        world = objects_world()
        if nouns is None:
            named = [word for item in items or world.items for name in item.names for word in tokens(name)]
            nouns = known_nouns([*_question_nouns(), *named])
        super().__init__(world, items, oracle, nouns)

    def block_player(self, policy: Policy) -> BlockPlayer | None:
        # it takes a guess for what it is meant to be; another tagger may read it otherwise
        return super().block_player(policy) if self._own_nouns else None


@cache
def objects_world() -> World:
    """Our own world: ``objects.tsv`` and ``questions.tsv``."""
    folder = files("qsft.envs.twenty_questions")
    objects, questions = (
        folder.joinpath(f"{name}.tsv").read_text(encoding="utf-8") for name in ("objects", "questions")
    )
    return load_world(objects, questions, GUESS_FORMS)


@cache
def _question_nouns() -> tuple[str, ...]:
    return tuple(files("qsft.envs.twenty_questions").joinpath("nouns.txt").read_text(encoding="utf-8").split())


def _item(row: int, text: str) -> Item:
    names = [name.strip() for name in text.split(";")] if isinstance(text, str) else []
    if not all(tokens(name) for name in names) or not names:
        raise ConfigError(f"twenty-questions: objects: row {row}: {text!r:.60} is no 'Name' or 'Name;Other name'")
    return Item.from_phrases(names)
