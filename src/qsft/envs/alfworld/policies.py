"""Scripted players. They see what any player sees: the texts."""

from __future__ import annotations

import random
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, ClassVar

from qsft.envs.alfworld.engine import APPLIANCES, KNIVES
from qsft.envs.alfworld.env import ALFWorld
from qsft.envs.alfworld.facts import object_types, receptacle_types
from qsft.envs.alfworld.texts import GOALS, TASK
from qsft.envs.alfworld.view import View, type_of
from qsft.errors import DataError

if TYPE_CHECKING:
    from qsft.data.trajectory import Trajectory


@dataclass(frozen=True)
class Goal:
    """A goal as read from its text.

    Attributes:
        object_type: what to bring or look at.
        target: the type of the receptacle it goes to, or of the lamp.
    """

    task_type: str
    object_type: str
    target: str

    @property
    def looking(self) -> bool:
        """Whether it is to be looked at under a lamp, and not brought somewhere."""
        return self.task_type == "look_at_obj_in_light"

    @property
    def treatment(self) -> str | None:
        """``"clean"``, ``"heat"`` or ``"cool"``, where that has to be done first."""
        return next((verb for verb in APPLIANCES if f"_{verb}_" in self.task_type), None)

    @property
    def state(self) -> str | None:
        """What the object is after the treatment."""
        return "hot" if self.treatment == "heat" else self.treatment


@cache
def read_goal(first: str) -> Goal:
    """The goal that a first observation tells.

    Raises:
        DataError: it is none of the original's wordings.
    """
    text = first.partition(TASK)[2].strip().removesuffix(".")
    for task_type, wordings in GOALS.items():
        for wording in wordings:
            if found := re.fullmatch(wording.format("([a-z]+)", "([a-z]+)"), text):
                return Goal(task_type, found[1], found[2])
    raise DataError(f"alfworld: the goal {text!r:.80} has none of the templates' wordings; a scripted player needs one")


class ALFWorldPolicy(ABC):
    """A player that reads the texts.

    Args:
        environment: the game to be played; its wording is used, its state is not.
    """

    name: str

    def __init__(self, environment: ALFWorld) -> None:
        self._put = environment.wording.put
        self.seed(0)

    def seed(self, seed: int) -> None:
        """Restarts the random generator."""
        self._seed = seed
        self.rng = random.Random(seed)

    def act(self, histories: Sequence[Trajectory]) -> list[str]:
        """One command a history, with a newline.

        Raises:
            DataError: a history that is no episode of this world.
        """
        return [self.choose(View.of(history), history.turns[0].text) + "\n" for history in histories]

    @abstractmethod
    def choose(self, view: View, first: str) -> str:
        """The next command, from what is known and the first observation."""

    def possible(self, view: View) -> list[str]:
        """The commands that do something, as far as a player can know."""
        held = view.held
        found = ["look", "inventory", *(f"go to {name}" for name in view.receptacles if not view.at(name))]
        found += [f"examine {held}"] if held else []
        for place in view.beside():
            found.append(f"examine {place}")
            if place in view.opened:
                found.append(f"{'close' if view.opened[place] else 'open'} {place}")
            if not view.reachable(place):
                continue
            for name in view.inside.get(place, ()):
                props = _props(name)
                if "toggleable" in props:
                    found.append(f"use {name}")
                if "pickupable" in props and held is None:
                    found.append(f"take {name} from {place}")
                if "sliceable" in props and held and type_of(held) in KNIVES:
                    found.append(f"slice {name} with {held}")
            if held and type_of(place) in _places(type_of(held)):
                found.append(self._put.format(held, place))
        for verb, (prop, appliance) in APPLIANCES.items():
            if held and prop in _props(held):
                found += [f"{verb} {held} with {place}" for place in view.beside() if type_of(place) == appliance]
        return found


class RandomPolicy(ALFWorldPolicy):
    """Any command that does something."""

    name = "random"

    def choose(self, view: View, first: str) -> str:
        return self.rng.choice(self.possible(view))


class ExpertPolicy(ALFWorldPolicy):
    """The ceiling. It looks first where the object most often is for the steps that looking there takes."""

    name = "expert"

    def choose(self, view: View, first: str) -> str:
        return self.pursue(view, read_goal(first))

    def pursue(self, view: View, goal: Goal) -> str:
        """The next command on the way to a goal; ``look`` when it cannot be reached."""
        held = view.held
        if held is None:
            return self._fetch(view, goal)
        if type_of(held) != goal.object_type:
            return self._put_away(view, held)
        if goal.looking:
            return self._light(view, goal)
        if goal.treatment and goal.state not in view.states.get(held, ()):
            appliance = APPLIANCES[goal.treatment][1]
            place = next((name for name in view.receptacles if type_of(name) == appliance), None)
            if place is None:
                return "look"  # there is none in this room
            return f"{goal.treatment} {held} with {place}" if view.at(place) else f"go to {place}"
        return self._bring(view, goal, held)

    def _fetch(self, view: View, goal: Goal) -> str:
        """On the way to an object of the goal's type, which is taken at the end."""
        done = _destination(view, goal)
        found = [
            (goal.state is not None and goal.state not in view.states.get(name, ()), not view.at(place), place, name)
            for place, inside in view.inside.items()
            for name in inside
            if type_of(name) == goal.object_type and not (place == done and _counts(view, goal, name))
        ]
        if not found:
            return self._search(view, goal.object_type, goal.target)
        _, _, place, name = min(found, key=lambda each: each[:2])
        return self._reach(view, place) or f"take {name} from {place}"

    def _light(self, view: View, goal: Goal) -> str:
        for place, inside in view.inside.items():
            for name in inside:
                if type_of(name) == goal.target:
                    return f"use {name}" if view.at(place) else f"go to {place}"
        return self._search(view, goal.target, None)

    def _bring(self, view: View, goal: Goal, held: str) -> str:
        place = _destination(view, goal)
        if place is None:
            return "look"  # there is none in this room
        return self._reach(view, place) or self._put.format(held, place)

    def _put_away(self, view: View, held: str) -> str:
        """Frees the hand, here if that is possible."""
        fitting = [name for name in view.receptacles if type_of(name) in _places(type_of(held))]
        if not fitting:
            return "look"  # nothing in this room takes it
        place = min(fitting, key=lambda name: (not view.at(name), not view.reachable(name)))
        return self._reach(view, place) or self._put.format(held, place)

    def _search(self, view: View, kind: str, unlikely: str | None) -> str:
        """On the way to the place that is most worth a look, among those not looked into."""
        unseen = [name for name in view.receptacles if name not in view.inside]
        if not unseen:
            return "look"  # it is nowhere
        return self._look_into(view, self._likeliest(view, unseen, kind, unlikely))

    def _look_into(self, view: View, place: str) -> str:
        return self._reach(view, place) or f"examine {place}"

    def _likeliest(self, view: View, places: Sequence[str], kind: str, unlikely: str | None) -> str:
        """The receptacle that is most worth a look for a kind of object."""
        by_type = Counter(map(type_of, view.receptacles))

        def worth(name: str) -> tuple[bool, bool, float]:
            place = type_of(name)
            steps = (not view.at(name)) + (not view.reachable(name))
            return place in _places(kind), place != unlikely, 1 / by_type[place] / max(steps, 1)

        return max(places, key=worth)

    def _reach(self, view: View, place: str) -> str | None:
        """The next command on the way into a receptacle; ``None`` if it can be reached into."""
        if not view.at(place):
            return f"go to {place}"
        if view.reachable(place):
            return None
        return f"open {place}" if place in view.opened else f"examine {place}"


class SlippingPolicy(ExpertPolicy):
    """An expert that now and then goes to something that is not there, and then goes on.

    Who learns from a player without mistakes has never seen what follows one, and repeats its own to the end: a policy
    that sees pictures names places that are not in them.
    """

    name = "slipping"
    #: of each command
    SLIPS = 0.15

    def choose(self, view: View, first: str) -> str:
        if self.rng.random() < self.SLIPS:
            return f"go to {self.rng.choice([name for name in _receptacles() if name not in view.receptacles])}"
        return super().choose(view, first)


@dataclass(frozen=True)
class Player:
    """How one kind of player decides. Probabilities; each habit is drawn once an episode.

    Attributes:
        share: of the population.
        wanders: that a command is any that does something, instead of the next on the way.
        forgets: the habit to leave out what has to be done to the object first.
        misplaces: the habit to bring things to the first place that takes them, and not to where they were wanted.
        leaves_shut: the habit to open nothing in search of something.
        in_order: the habit to search the receptacles in the order in which they were told.
    """

    share: float
    wanders: float
    forgets: float
    misplaces: float
    leaves_shut: float
    in_order: float


@dataclass(frozen=True)
class _Habits:
    """Of one player in one episode; see :class:`Player`."""

    wanders: float
    forgets: bool
    misplaces: bool
    leaves_shut: bool
    in_order: bool


class PopulationPolicy(ExpertPolicy):
    """Players of mixed skill; each game is played by one of them. The behaviour policy of the data.

    Most of what they lose they lose by habit, as people and language models do, and not by chance. Who plays a game
    follows from the policy's seed and the game's first observation.
    """

    name = "population"
    #: together they succeed in 34% of the games within 30 steps, as in the paper's data
    PLAYERS: ClassVar[tuple[Player, ...]] = (
        Player(0.54, wanders=0.35, forgets=0.8, misplaces=0.6, leaves_shut=0.6, in_order=0.9),
        Player(0.33, wanders=0.20, forgets=0.5, misplaces=0.3, leaves_shut=0.4, in_order=0.6),
        Player(0.13, wanders=0.05, forgets=0.1, misplaces=0.05, leaves_shut=0.1, in_order=0.2),
    )
    _habits: _Habits

    def choose(self, view: View, first: str) -> str:
        self._habits = self._of(first)
        if self.rng.random() < self._habits.wanders:
            return self.rng.choice(self.possible(view))
        goal = read_goal(first)
        if self._habits.forgets and goal.treatment:
            goal = replace(goal, task_type="pick_and_place_simple")
        if self._habits.misplaces:
            kind = "pick_and_place_simple" if goal.looking else goal.task_type
            goal = replace(goal, task_type=kind, target=_other(view, goal))
        return self.pursue(view, goal)

    def _of(self, first: str) -> _Habits:
        who = random.Random(f"{self._seed} {first}")
        player = who.choices(self.PLAYERS, [each.share for each in self.PLAYERS])[0]
        habits = (player.forgets, player.misplaces, player.leaves_shut, player.in_order)
        return _Habits(player.wanders, *(who.random() < chance for chance in habits))

    def _search(self, view: View, kind: str, unlikely: str | None) -> str:
        unseen = [name for name in view.receptacles if name not in view.inside and not self._passes_by(view, name)]
        if not unseen:  # from the start again, where one does not stand
            elsewhere = [name for name in view.receptacles if not view.at(name)]
            return f"go to {self.rng.choice(elsewhere or view.receptacles)}"
        place = unseen[0] if self._habits.in_order else self._likeliest(view, unseen, kind, unlikely)
        return self._look_into(view, place)

    def _passes_by(self, view: View, name: str) -> bool:
        """Whether this player does not look into a receptacle that it knows."""
        return self._habits.leaves_shut and view.opened.get(name) is False


def _other(view: View, goal: Goal) -> str:
    """The type of the first receptacle that takes the goal's object and is not the goal's; that, if there is none."""
    types = map(type_of, view.receptacles)
    return next((kind for kind in types if kind in _places(goal.object_type) and kind != goal.target), goal.target)


@cache
def _receptacles() -> list[str]:
    """The names of all receptacles that any room may have."""
    return [name for kind in receptacle_types().values() for name in kind.names]


def _props(name: str) -> frozenset[str]:
    kind = object_types().get(type_of(name))
    return kind.props if kind else frozenset()


def _places(kind: str) -> frozenset[str]:
    """The receptacle types that may hold an object type; of an unknown type no place is known."""
    known = object_types().get(kind)
    return known.places if known else frozenset()


def _counts(view: View, goal: Goal, name: str) -> bool:
    """Whether an object that lies where it belongs is as it should be."""
    return goal.state is None or goal.state in view.states.get(name, ())


def _destination(view: View, goal: Goal) -> str | None:
    """The receptacle to bring things to: where most of them are already, else one that is near and open."""
    return max(
        (name for name in view.receptacles if type_of(name) == goal.target),
        key=lambda name: (
            sum(type_of(each) == goal.object_type and _counts(view, goal, each) for each in view.inside.get(name, ())),
            view.at(name),
            view.reachable(name),
        ),
        default=None,
    )
