"""Houses, and games in them: everything follows from a game's name.

A house is one room, as in the original: its receptacles and where one stands in front of them. Of each kind of room
there are :data:`TRAINING_HOUSES` for training and as many as :data:`UNSEEN_HOUSES` that no training game is played in.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

from qsft.envs.alfworld.engine import APPLIANCES
from qsft.envs.alfworld.facts import ObjectType, object_types, receptacle_types
from qsft.envs.alfworld.spec import TASK_TYPES, Receptacle, Spec, Thing
from qsft.envs.alfworld.texts import GOALS
from qsft.errors import ConfigError

#: ``"train"``; ``"seen"``: other games in the same houses; ``"unseen"``: games in other houses.
SPLITS = ("train", "seen", "unseen")
TRAINING_HOUSES = 80
UNSEEN_HOUSES = 20
GAMES = 10**9  # of each split and task type

_ROOMS = {
    "pick_and_place_simple": ("kitchen", "livingroom", "bedroom", "bathroom"),
    "look_at_obj_in_light": ("livingroom", "bedroom"),
    "pick_clean_then_place_in_recep": ("kitchen", "bathroom"),
    "pick_heat_then_place_in_recep": ("kitchen",),
    "pick_cool_then_place_in_recep": ("kitchen",),
    "pick_two_obj_and_place": ("kitchen", "livingroom", "bedroom", "bathroom"),
}
_APPLIANCE_OF_TASK = {f"pick_{verb}_then_place_in_recep": rule for verb, rule in APPLIANCES.items()}
#: side by side, so that one can stand in front of two of them at once
_NEIGHBOURS = ("cabinet", "drawer", "shelf", "stoveburner")
_TOGETHER = 0.25
_PRESENT = 0.6  # of what a room may hold
#: how many there are of an object, each as likely
COPIES = (1, 1, 1, 1, 1, 1, 2, 2, 2, 3)


@dataclass(frozen=True)
class House:
    """A room without its objects."""

    room: str
    receptacles: tuple[Receptacle, ...]

    @property
    def by_type(self) -> dict[str, list[str]]:
        """Receptacle type -> names."""
        found: dict[str, list[str]] = {}
        for receptacle in self.receptacles:
            found.setdefault(receptacle.type, []).append(receptacle.name)
        return found


def game_name(split: str, task_type: str, number: int) -> str:
    """The name of a generated game, ``"train/look_at_obj_in_light/81"``."""
    return f"{split}/{task_type}/{number}"


def generate(name: str) -> Spec:
    """The game of that name.

    Raises:
        ConfigError: no game can have this name.
    """
    split, task_type = _parsed(name)
    rng = random.Random(f"alfworld game {name}")  # a text as seed gives the same numbers everywhere
    first, houses = (TRAINING_HOUSES, UNSEEN_HOUSES) if split == "unseen" else (0, TRAINING_HOUSES)
    while True:  # most draws are fine; a few houses lack what a task needs
        room = rng.choice(_ROOMS[task_type])
        spec = _furnished(task_type, house(room, first + rng.randrange(houses)), rng)
        if spec is not None:
            return spec


@cache
def house(room: str, number: int) -> House:
    """A house of one kind of room; ``number`` counts the training houses first, then the unseen ones."""
    rng = random.Random(f"alfworld house {room} {number}")
    names: list[tuple[str, str, bool]] = []
    for kind in receptacle_types().values():
        if room in kind.rooms:
            chance, fewest, most = kind.rooms[room]
            count = rng.randint(fewest, most) if rng.random() < chance else 0
            names += [(f"{kind.name} {i}", kind.name, kind.openable) for i in range(count, 0, -1)]
    places: list[int] = []
    for i, (_, kind_name, _) in enumerate(names):
        beside = i > 0 and kind_name == names[i - 1][1] and kind_name in _NEIGHBOURS and rng.random() < _TOGETHER
        places.append(places[-1] if beside else (places[-1] + 1 if places else 0))
    numbers = list(range(1, places[-1] + 2))
    rng.shuffle(numbers)
    receptacles = tuple(
        Receptacle(name, kind_name, numbers[place], openable, False)
        for (name, kind_name, openable), place in zip(names, places, strict=True)
    )
    return House(room, receptacles)


def _furnished(task_type: str, home: House, rng: random.Random) -> Spec | None:
    """A game in a house; ``None`` if the draw has no goal or no place for something."""
    by_type = home.by_type
    present = [
        kind
        for kind in object_types().values()
        if home.room in kind.rooms and kind.places & by_type.keys() and rng.random() < _PRESENT * kind.rooms[home.room]
    ]
    goals = [(kind.name, target) for kind in present for target in _targets(task_type, kind, by_type, present)]
    if not goals:
        return None
    wanted = rng.choice(sorted({kind for kind, _ in goals}))  # first what, then where: some objects fit anywhere
    target = rng.choice([target for kind, target in goals if kind == wanted])
    count = 2 if task_type == "pick_two_obj_and_place" else 1
    things = []
    for kind in present:
        copies = max(rng.choice(COPIES), count if kind.name == wanted else 1)
        places = sorted(kind.places & by_type.keys() - ({target} if kind.name == wanted else set()))
        for i in range(copies, 0, -1):
            within = _somewhere(places, by_type, rng)
            things.append(Thing(f"{kind.name} {i}", kind.name, within, kind.props))
    looking = task_type == "look_at_obj_in_light"
    movable = {kind.name: kind.places for kind in present if "pickupable" in kind.props}
    return Spec(
        task_type=task_type,
        goal_text=rng.choice(GOALS[task_type]).format(wanted, target),
        object_type=wanted,
        receptacle_type=None if looking else target,
        toggle_type=target if looking else None,
        count=count,
        receptacles=home.receptacles,
        things=tuple(things),
        can_contain={kind: frozenset(name for name, places in movable.items() if kind in places) for kind in by_type},
    )


def _somewhere(places: list[str], by_type: dict[str, list[str]], rng: random.Random) -> str:
    """One of the receptacles; half of the time each is as likely, else each type is, so that tables have more."""
    if rng.random() < 0.5:
        return rng.choice([name for place in places for name in by_type[place]])
    return rng.choice(by_type[rng.choice(places)])


def _targets(task_type: str, kind: ObjectType, by_type: dict[str, list[str]], present: list[ObjectType]) -> list[str]:
    """The receptacle types (or lamps) that a goal with this object can name; it must have some other place as well."""
    if "pickupable" not in kind.props:
        return []
    if task_type == "look_at_obj_in_light":
        return [lamp.name for lamp in present if "toggleable" in lamp.props]
    needed, appliance = _APPLIANCE_OF_TASK.get(task_type, ("pickupable", ""))
    if needed not in kind.props or (appliance and appliance not in by_type):
        return []
    places = sorted(kind.places & by_type.keys())
    return [place for place in places if place != appliance] if len(places) > 1 else []


def _parsed(name: str) -> tuple[str, str]:
    """Split and task type of a game's name."""
    parts = name.split("/") if isinstance(name, str) else []
    if len(parts) == 3 and parts[0] in SPLITS and parts[1] in TASK_TYPES:
        number = parts[2]
        short = len(number) <= len(str(GAMES)) and number.isascii() and number.isdecimal()
        if short and str(int(number)) == number and int(number) < GAMES:
            return parts[0], parts[1]
    raise ConfigError(
        f"alfworld: game {name!r:.80} is no name of a game; it is SPLIT/TASK TYPE/NUMBER, such as "
        f"'unseen/look_at_obj_in_light/81', with a split of {', '.join(SPLITS)} and a number below {GAMES}"
    )
