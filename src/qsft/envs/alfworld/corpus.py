"""Tours of a room, for a language model that has not seen a game.

They hold the world's texts and what follows from what, and nothing of how a task is done: no task is told, what is done
is drawn at random, and what is asked are things that the texts have told.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from qsft.data.trajectory import AGENT_ROLE, Trajectory, Turn
from qsft.envs.alfworld import texts
from qsft.envs.alfworld.facts import object_types, receptacle_types
from qsft.envs.alfworld.policies import RandomPolicy
from qsft.envs.alfworld.view import View, type_of

if TYPE_CHECKING:
    from qsft.envs.alfworld.env import ALFWorld

T = TypeVar("T")

FEWEST, MOST = 6, 16
_MARKS = re.compile(r"(\d)([,.])")
_GOING = 0.5  # of the commands: who stays learns of one place only
_ASKED = 0.5  # after a command
_LOOKING = ("look", "inventory", "examine")  # together as often as one of the others
_UNSEEN = 0.25  # of the questions: a thing that was not seen so far


def tours(
    environment: ALFWorld, count: int, seed: int = 0, picture: Callable[[View], bytes] | None = None
) -> Iterator[Trajectory]:
    """Six to sixteen commands at random with what is answered; in between ``"a statue"``, and where one was seen last.

    Half of the commands go somewhere; of the others the verb is drawn first, so that the rare ones come up as often. A
    turn is a line, the agent's, with reward 0; a blank stands before the marks behind names, as a tokenizer of
    :func:`~qsft.envs.alfworld.symbols.whole_parts` writes them.

    Args:
        environment: whose games to walk through, with its split, tasks and wording; it is reset.
        count: how many.
        seed: the first n tours are the same however many are asked for.
        picture: of what is told, as the content of a file; it stands before the text, in a turn of the environment.
    """
    rng = np.random.default_rng(seed)
    player = RandomPolicy(environment)
    for _ in range(count):
        first, _ = environment.reset(seed=int(rng.integers(2**31)))
        view = View(first)
        _, room, _ = first.split("\n\n")
        turns = _told(room, view, picture)
        for _ in range(int(rng.integers(FEWEST, MOST + 1))):
            command = _any(player.possible(view), rng)
            answer, _, won, truncated, _ = environment.step(command)
            view.learn(command, answer)
            turns += [_line(command), *_told(answer, view, picture)]
            if won or truncated:
                break
            if view.inside and rng.random() < _ASKED:
                turns += map(_line, _question(view, rng))
        yield Trajectory(turns, "terminated")


def _line(text: str) -> Turn:
    return Turn(AGENT_ROLE, _MARKS.sub(r"\1 \2", f"{text}\n"), 0.0)


def _told(text: str, view: View, picture: Callable[[View], bytes] | None) -> list[Turn]:
    shown = [] if picture is None else [Turn("user", "", images=(picture(view),))]
    return [*shown, _line(text)]


def _any(commands: list[str], rng: np.random.Generator) -> str:
    going = [command for command in commands if command.startswith("go to ")]
    if not going or rng.random() >= _GOING:
        by_verb: dict[str, list[str]] = {}
        for command in commands:
            verb = command.partition(" ")[0]
            by_verb.setdefault("look" if verb in _LOOKING else verb, []).append(command)
        going = _one(list(by_verb.values()), rng)
    return _one(going, rng)


def _one(items: Sequence[T], rng: np.random.Generator) -> T:
    return items[int(rng.integers(len(items)))]


def _question(view: View, rng: np.random.Generator) -> tuple[str, str]:
    """What is asked after, and the answer."""
    seen = {type_of(name): place for place, inside in view.inside.items() for name in inside}
    others = [kind for kind in object_types() if kind not in seen and kind != type_of(view.held or "")]
    if not seen or rng.random() < _UNSEEN:
        return f"a {_one(others, rng)}", texts.SEEN_NOWHERE
    kind = _one(list(seen), rng)
    place = seen[kind]
    found = [name for name in view.inside[place] if type_of(name) == kind]
    return f"a {kind}", texts.contents(place, receptacle_types()[type_of(place)].openable, True, found)
