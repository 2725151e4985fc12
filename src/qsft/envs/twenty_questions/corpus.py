"""Riddles about the items of a world, for a language model that has not seen a game.

They hold the game's words and what is true of the items, and nothing of how it is played well: what is asked is drawn at
random by one who knows the item, nothing is won or lost, and no question follows from an answer.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qsft.data.trajectory import AGENT_ROLE, Trajectory, Turn
from qsft.envs.twenty_questions.world import World

MOST_QUESTIONS = 12


def riddles(world: World, texts: int, seed: int = 0) -> Iterator[Trajectory]:
    """Questions about an item with their answers, a line each, and its name at the end.

    An item, each alike often; two to twelve different questions, of each the answer drawn first, so that the rare yes
    comes up as often as the common no; then ``"Is it a cat?"``, ``"Yes."``. Half of the wordings are the plainest. Each
    line is an agent turn with reward 0: a model learns to ask, to answer and to name.

    Args:
        world: the items and questions.
        texts: how many.
        seed: the first n texts are the same however many are asked for.
    """
    rng = np.random.default_rng(seed)
    asked = len(world.questions)
    for _ in range(texts):
        item = int(rng.integers(len(world.items)))
        answers = world.outcomes[:asked, item]
        of_answer = [rng.permutation(np.flatnonzero(answers == answer)).tolist() for answer in np.unique(answers)]
        moves: list[int] = []
        for _ in range(int(rng.integers(2, MOST_QUESTIONS + 1))):
            of_answer = [questions for questions in of_answer if questions]
            moves.append(of_answer[int(rng.integers(len(of_answer)))].pop())
        lines = [line for move in [*moves, asked + item] for line in _asked_and_answered(world, move, item, rng)]
        yield Trajectory([Turn(AGENT_ROLE, line, 0.0) for line in lines], "terminated")


def _asked_and_answered(world: World, move: int, item: int, rng: np.random.Generator) -> tuple[str, str]:
    forms = world.forms(move)
    form = forms[0] if rng.random() < 0.5 else forms[int(rng.integers(len(forms)))]
    return form + "\n", world.replies(move)[world.outcomes[move, item]] + "\n"
