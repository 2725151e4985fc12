"""What a player knows who has read an episode's texts, and nothing else. The scripted players and the pictures use it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from qsft.data.thoughts import split_thought
from qsft.envs.alfworld.facts import receptacle_types
from qsft.envs.alfworld.texts import EMPTY_HANDED, IN_THE_MIDDLE, NOTHING_HAPPENS, TASK, without_reminder
from qsft.errors import DataError

if TYPE_CHECKING:
    from qsft.data.trajectory import Trajectory

_NAME = r"[a-z]+ \d+"
_NAMES = re.compile(_NAME)
_ARRIVED = re.compile(r"You arrive at .*?\. ")
_OPEN = re.compile(rf"The ({_NAME}) is open\. In it, you see (.*)\.")
_CLOSED = re.compile(rf"The ({_NAME}) is closed\.")
_ON = re.compile(rf"On the ({_NAME}), you see (.*)\.")
_CLOSE = re.compile(rf"You close the ({_NAME})\.")
_TAKE = re.compile(rf"You pick up the ({_NAME}) from the ({_NAME})\.")
_PUT = re.compile(rf"You (?:move the ({_NAME}) to|put the ({_NAME}) in/on) the ({_NAME})\.")
_TREAT = re.compile(rf"You (heat|cool|clean) the ({_NAME}) using the {_NAME}\.")
_USE = re.compile(rf"You turn on the ({_NAME})\.")
_SLICE = re.compile(rf"You sliced the ({_NAME}) with the {_NAME}\.")
_STATE = re.compile(rf"This is a (hot|cool|cold|clean|sliced)(?: and (clean))?(?: (sliced))? ({_NAME})\.")
_FACING = re.compile(r"You are facing the (.*)\. Next to it")
_CARRYING = re.compile(rf"You are carrying: a ({_NAME})\.")


def type_of(name: str) -> str:
    """``"shelf 2" -> "shelf"``."""
    return name.partition(" ")[0]


class View:
    """What the texts so far have told.

    Attributes:
        receptacles: all names, in the order in which they were told.
        here: the receptacle that one stands before and that was last spoken of; ``None`` in the middle of the room.
        inside: receptacle -> what was last seen or put in or on it.
        looked: the receptacles that were looked into; of the others ``inside`` tells only what was put there.
        opened: receptacle -> whether it is open. Only of those of which it was told, and that can be opened.
        held: the object in the hand.
        states: object -> what was done to it: hot, cool, clean, sliced, on.
        refused: the last command did nothing.

    Args:
        first: the first observation.

    Raises:
        DataError: it is none of this world.
    """

    def __init__(self, first: str) -> None:
        room, found, _ = first.partition(TASK)
        if IN_THE_MIDDLE not in room or not found:
            raise DataError(
                f"alfworld: {first!r:.80} is no first observation of this world; give one of its episodes, with the texts "
                "in full"
            )
        self.receptacles = tuple(_NAMES.findall(room.partition(IN_THE_MIDDLE)[2]))
        self.here: str | None = None
        self.inside: dict[str, list[str]] = {}
        self.looked: set[str] = set()
        self.opened: dict[str, bool] = {}
        self.held: str | None = None
        self.states: dict[str, set[str]] = {}
        self.refused = False
        self._together: dict[str, set[str]] = {}

    @classmethod
    def of(cls, history: Trajectory) -> View:
        """The view after a whole history."""
        view = cls(history.turns[0].text)
        for turn, answer in zip(history.turns, history.turns[1:], strict=False):
            if turn.is_agent:
                view.learn(split_thought(turn.text)[1], answer.text)
        return view

    def at(self, receptacle: str) -> bool:
        """Whether one stands before it, as far as is known."""
        return self.here == receptacle or receptacle in self._together.get(self.here or "", ())

    def beside(self) -> list[str]:
        """The receptacles that one stands before, as far as is known, in their order."""
        return [name for name in self.receptacles if self.at(name)]

    def reachable(self, receptacle: str) -> bool:
        """Whether it is known not to be closed."""
        kind = receptacle_types().get(type_of(receptacle))
        return self.opened.get(receptacle, kind is None or not kind.openable)

    def learn(self, action: str, answer: str) -> None:
        """Takes in a command and what was answered."""
        action, answer = action.strip(), without_reminder(answer)
        self.refused = answer == NOTHING_HAPPENS
        going = action.removeprefix("go to ") if action.startswith("go to ") else None
        if self.refused:
            if going is not None and going in self.receptacles and self.here is not None:
                self._join([self.here, going])  # one cannot go where one is
            return
        if arrived := _ARRIVED.match(answer):
            self.here = going
            answer = answer[arrived.end() :]
        if found := _ON.search(answer):
            self._look(*found.groups())
        elif found := _OPEN.search(answer):
            self._look(*found.groups())
            self.opened[found[1]] = True
        elif found := _CLOSED.search(answer) or _CLOSE.search(answer):
            self.here = found[1]
            self.opened[found[1]] = False
        elif found := _FACING.match(answer):
            self._join(_NAMES.findall(found[1]))
        else:
            self._learn_of_objects(answer)

    def _look(self, receptacle: str, listed: str) -> None:
        self.here = receptacle
        self.looked.add(receptacle)
        self.inside[receptacle] = _NAMES.findall(listed)

    def _learn_of_objects(self, answer: str) -> None:
        if found := _TAKE.match(answer):
            self.held, self.here = found[1], found[2]
            inside = self.inside.get(found[2], [])
            if found[1] in inside:
                inside.remove(found[1])
        elif found := _PUT.match(answer):
            self.held, self.here = None, found[3]
            self.inside.setdefault(found[3], []).append(found[1] or found[2])
        elif found := _TREAT.match(answer):
            states = self._states(found[2])
            if found[1] == "clean":
                states.add("clean")
            else:
                states -= {"hot", "cool"}
                states.add("hot" if found[1] == "heat" else "cool")
        elif found := _USE.match(answer):
            self._states(found[1]).add("on")
        elif found := _SLICE.match(answer):
            self._states(found[1]).add("sliced")
        elif found := _STATE.match(answer):
            self.states[found[4]] = {"cool" if word == "cold" else word for word in found.groups()[:3] if word}
        elif found := _CARRYING.match(answer):
            self.held = found[1]
        elif answer == EMPTY_HANDED:
            self.held = None

    def _states(self, name: str) -> set[str]:
        return self.states.setdefault(name, set())

    def _join(self, names: list[str]) -> None:
        """They are all in the same place."""
        joint = set(names).union(*(self._together.get(name, ()) for name in names))
        for name in joint:
            self._together[name] = joint
