"""A closed world to ask about: its items, its questions, and the answer to each question about each item."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qsft.envs.twenty_questions.rules import tokens
from qsft.errors import ConfigError

NO, YES = "No.", "Yes."
_ARTICLES = ("a ", "an ", "the ")


@dataclass(frozen=True)
class Item:
    """Something to be found.

    Attributes:
        phrases: how it is spoken of, with the article, the usual one first: ``("a sofa", "a couch")``.
        names: what a right guess may end in: the same without articles, and whatever else is understood.
    """

    phrases: tuple[str, ...]
    names: tuple[str, ...]

    @classmethod
    def from_phrases(cls, phrases: Sequence[str], row: Mapping[str, str] | None = None) -> Item:
        """An item whose names are its phrases without articles; of a table's row it reads nothing else."""
        return cls(tuple(phrases), tuple(without_article(phrase) for phrase in phrases))


@dataclass(frozen=True)
class Question:
    """One thing to ask.

    Attributes:
        attribute: what it asks for.
        forms: its wordings, the plainest first.
        replies: its possible answers; ``("No.", "Yes.")`` or short answers such as ``"It is in Europe."``.
    """

    attribute: str
    forms: tuple[str, ...]
    replies: tuple[str, ...]


class World:
    """Q questions about N items.

    A *move* is a question (0..Q-1) or the guess of an item (Q..Q+N-1).

    Args:
        items: what can be found.
        questions: what can be asked.
        table: ``[Q, N]``, which of its question's replies is true of an item.
        guess_forms: wordings of a guess, the plainest first, with ``{}`` for the item's phrase.

    Attributes:
        outcomes: ``[Q+N, N]`` uint8: the number of the reply to a move if the item is the one sought.
        wordings: ``[Q+N]``, how many wordings each move has.
        index: name in lower case -> item number.

    Raises:
        ConfigError: a name or a wording that would stand for two things.
    """

    def __init__(
        self,
        items: Sequence[Item],
        questions: Sequence[Question],
        table: NDArray[np.integer],
        guess_forms: Sequence[str],
    ) -> None:
        self.items = tuple(items)
        self.questions = tuple(questions)
        self.guess_forms = tuple(guess_forms)
        self.outcomes = np.concatenate([table, np.eye(len(items), dtype=np.int64)]).astype(np.uint8)
        self.index: dict[str, int] = {}
        self._moves: dict[str, int] = {}
        for number, item in enumerate(self.items):
            for name in item.names:
                if self.index.setdefault(name.lower(), number) != number:
                    raise ConfigError(f"the name {name!r} belongs to two items; give each its own")
                for form in self.guess_forms:
                    for article in ("", *_ARTICLES):
                        self._remember(form.format(article + name), len(self.questions) + number)
        for number, question in enumerate(self.questions):
            for text in question.forms:
                self._remember(text, number)
        self.wordings = np.array([len(self.forms(move)) for move in range(len(self.outcomes))])

    def _remember(self, text: str, move: int) -> None:
        if self._moves.setdefault(_plain(text), move) != move:
            raise ConfigError(f"the question {text!r} has two meanings; word one of them otherwise")

    def move_of(self, text: str) -> int | None:
        """The move that a text makes, whatever its letters' case and its last marks; ``None``: not understood."""
        return self._moves.get(_plain(text))

    def forms(self, move: int) -> tuple[str, ...]:
        """All wordings of a move, the plainest first; of a guess, every form with every name."""
        asked = len(self.questions)
        if move < asked:
            return self.questions[move].forms
        return tuple(form.format(phrase) for phrase in self.items[move - asked].phrases for form in self.guess_forms)

    def replies(self, move: int) -> tuple[str, ...]:
        """The possible answers to a move, in the order of their numbers."""
        return self.questions[move].replies if move < len(self.questions) else (NO, YES)

    def pieces(self, whole_moves: bool = False) -> list[str]:
        """Everything between blanks in the texts of all moves and replies, sorted; or the moves' texts whole."""
        found: set[str] = set()
        for move in range(len(self.outcomes)):
            for text in self.forms(move):
                found.update([text] if whole_moves else text.split(" "))
            for text in self.replies(move):
                found.update(text.split(" "))
        return sorted(found)


def load_world(
    items: str,
    questions: str,
    guess_forms: Sequence[str],
    make_item: Callable[[Sequence[str], Mapping[str, str]], Item] = Item.from_phrases,
) -> World:
    """A world from two tables with tabs between columns and a line of headings.

    Args:
        items: a row an item. Column ``names``: its phrases, ``;`` between them. Column ``attributes``: what is true of
            it, blanks between them; what is not there is not true. Any other column may hold the answer to an open
            question.
        questions: a row a question. Column ``attribute``: one that items have, or a column of ``items``. Column
            ``questions``: the wordings, `` | `` between them. Column ``answer``, for open questions: the reply, with
            ``{}`` for what stands in the item's column.
        guess_forms: see :class:`World`.
        make_item: makes an item of its phrases and its row.

    Raises:
        ConfigError: a table that contradicts itself, with the row.
    """
    item_rows = list(csv.DictReader(items.splitlines(), delimiter="\t"))
    question_rows = list(csv.DictReader(questions.splitlines(), delimiter="\t"))
    attributes = [set(row["attributes"].split()) for row in item_rows]
    asked: list[Question] = []
    table = np.zeros((len(question_rows), len(item_rows)), np.uint8)
    for number, row in enumerate(question_rows):
        attribute, forms = row["attribute"], tuple(form.strip() for form in row["questions"].split(" | "))
        template = row.get("answer")
        if template:
            values = sorted({item[attribute] for item in item_rows})
            table[number] = [values.index(item[attribute]) for item in item_rows]
            asked.append(Question(attribute, forms, tuple(template.format(value) for value in values)))
        else:
            table[number] = [attribute in known for known in attributes]
            asked.append(Question(attribute, forms, (NO, YES)))
    known = {question.attribute for question in asked}
    if len(known) < len(asked):
        raise ConfigError("questions: an attribute stands in two rows; put all wordings into one")
    for number, held in enumerate(attributes, start=2):
        if held - known:
            raise ConfigError(f"items: row {number}: attribute {sorted(held - known)[0]!r} has no question")
    things = [make_item([part.strip() for part in row["names"].split(";")], row) for row in item_rows]
    return World(things, asked, table, guess_forms)


def without_article(phrase: str) -> str:
    """``"an owl" -> "owl"``."""
    return next((phrase[len(a) :] for a in _ARTICLES if phrase.lower().startswith(a)), phrase)


def _plain(text: str) -> str:
    return " ".join(tokens(text))
