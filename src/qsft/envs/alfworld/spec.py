"""What pins a game: the house, what lies where, and the goal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qsft.errors import ConfigError

TASK_TYPES = (
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
)


_NAME = re.compile(r"[a-z]+ [0-9]+")  # players and pictures find names in texts by this


@dataclass(frozen=True, slots=True)
class Receptacle:
    """Something that objects lie on or in. ``location``: where one stands in front of it; several can share one."""

    name: str
    type: str
    location: int
    openable: bool
    open: bool


@dataclass(frozen=True, slots=True)
class Thing:
    """An object. ``within``: the receptacle that it is in or on; ``props``: what can be done with it."""

    name: str
    type: str
    within: str
    props: frozenset[str]


@dataclass(frozen=True, slots=True)
class Spec:
    """A game before its first move.

    Attributes:
        task_type: one of :data:`TASK_TYPES`.
        goal_text: as told to the player, without a full stop.
        object_type: what to bring or to look at.
        receptacle_type: where to; ``None`` when the task is to look at something under a lamp.
        toggle_type: the lamp in that case, else ``None``.
        count: how many of them.
        receptacles, things: in the order in which texts list them.
        can_contain: receptacle type -> the object types that may be put there.
    """

    task_type: str
    goal_text: str
    object_type: str
    receptacle_type: str | None
    toggle_type: str | None
    count: int
    receptacles: tuple[Receptacle, ...]
    things: tuple[Thing, ...]
    can_contain: Mapping[str, frozenset[str]]

    @classmethod
    def from_dict(cls, given: Any) -> Spec:
        """A spec from what JSON gives; the inverse of :meth:`to_dict`.

        Raises:
            ConfigError: a field that is missing or of the wrong kind, a task type that is unknown, a name that is none
                or stands twice, or an object in a receptacle that is not there.
        """
        task_type = _field(given, "task_type", str, "spec")
        if task_type not in TASK_TYPES:
            raise ConfigError(f"alfworld: spec: task_type {task_type!r:.60}; use one of {', '.join(TASK_TYPES)}")
        goal = _field(given, "goal", Mapping, "spec")
        receptacles = tuple(_receptacle(each) for each in _field(given, "receptacles", list, "spec"))
        things = tuple(_thing(each) for each in _field(given, "objects", list, "spec"))
        seen: set[str] = set()
        for name in (*(each.name for each in receptacles), *(each.name for each in things)):
            if not _NAME.fullmatch(name):
                raise ConfigError(f"alfworld: spec: the name {name!r:.60}: write letters and a number, like 'shelf 2'")
            if name in seen:
                raise ConfigError(f"alfworld: spec: the name {name!r:.60} stands there twice; number them")
            seen.add(name)
        known = {each.name for each in receptacles}
        for thing in things:
            if thing.within not in known:
                raise ConfigError(
                    f"alfworld: spec: object {thing.name!r:.60} is in {thing.within!r:.60}, which is no receptacle there"
                )
        can_contain = {}
        for kind, types in _field(given, "can_contain", Mapping, "spec").items():
            if not isinstance(types, list | tuple) or not all(isinstance(each, str) for each in types):
                raise ConfigError(f"alfworld: spec: can_contain: {kind!r:.60}: give a list of object types")
            can_contain[str(kind)] = frozenset(types)
        spec = cls(
            task_type=task_type,
            goal_text=_field(given, "goal_text", str, "spec"),
            object_type=_field(goal, "object_type", str, "spec: goal"),
            receptacle_type=_optional(goal, "receptacle_type"),
            toggle_type=_optional(goal, "toggle_type"),
            count=_field(goal, "count", int, "spec: goal"),
            receptacles=receptacles,
            things=things,
            can_contain=can_contain,
        )
        if spec.count < 1:
            raise ConfigError(f"alfworld: spec: goal: count is {spec.count}; it must be at least 1")
        wanted = "toggle_type" if task_type == "look_at_obj_in_light" else "receptacle_type"
        if getattr(spec, wanted) is None:
            raise ConfigError(f"alfworld: spec: goal: {wanted} is missing, which {task_type} needs")
        return spec

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "task_type": self.task_type,
            "goal_text": self.goal_text,
            "goal": {
                "object_type": self.object_type,
                "receptacle_type": self.receptacle_type,
                "toggle_type": self.toggle_type,
                "count": self.count,
            },
            "receptacles": [
                {"name": r.name, "type": r.type, "location": r.location, "openable": r.openable, "open": r.open}
                for r in self.receptacles
            ],
            "objects": [
                {"name": t.name, "type": t.type, "in": t.within, "props": sorted(t.props)} for t in self.things
            ],
            "can_contain": {kind: sorted(types) for kind, types in self.can_contain.items()},
        }


def _receptacle(given: Any) -> Receptacle:
    where = "spec: receptacles"
    name = _field(given, "name", str, where)
    kind = _field(given, "type", str, f"{where}: {name!r:.60}")
    location = _field(given, "location", int, f"{where}: {name!r:.60}")
    openable = _field(given, "openable", bool, f"{where}: {name!r:.60}")
    return Receptacle(name, kind, location, openable, _field(given, "open", bool, f"{where}: {name!r:.60}"))


def _thing(given: Any) -> Thing:
    where = "spec: objects"
    name = _field(given, "name", str, where)
    where = f"{where}: {name!r:.60}"
    props = _field(given, "props", list, where)
    if not all(isinstance(prop, str) for prop in props):
        raise ConfigError(f"alfworld: {where}: props: give a list of texts, such as ['pickupable']")
    kind, within = _field(given, "type", str, where), _field(given, "in", str, where)
    return Thing(name, kind, within, frozenset(props))


def _optional(goal: Mapping[str, Any], name: str) -> str | None:
    return None if goal.get(name) is None else _field(goal, name, str, "spec: goal")


def _field(given: Any, name: str, kind: Any, where: str) -> Any:
    if not isinstance(given, Mapping):
        raise ConfigError(f"alfworld: {where}: {given!r:.60} is no mapping; give one with {name!r}")
    value = given.get(name)
    wanted = (list, tuple) if kind is list else kind
    if not isinstance(value, wanted) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f"alfworld: {where}: {name} is {value!r:.60}; it must be of type {kind.__name__.lower()}")
    return value
