"""The house: its rooms and things, and what each command does to them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from functools import cache, lru_cache

#: room -> direction -> room
EXITS: dict[str, dict[str, str]] = {
    "bedroom": {"south": "bathroom", "west": "living room"},
    "living room": {"east": "bedroom", "south": "office", "west": "dining room"},
    "dining room": {"east": "living room", "west": "kitchen"},
    "kitchen": {"east": "dining room", "north": "garden", "west": "backyard"},
    "office": {"east": "bathroom", "north": "living room"},
    "bathroom": {"north": "bedroom", "west": "office"},
    "garden": {"south": "kitchen"},
    "backyard": {"east": "kitchen"},
}
ROOMS = tuple(EXITS)
#: room -> the piece of furniture in it
FURNITURE = {
    "bedroom": "table",
    "living room": "table",
    "dining room": "table",
    "office": "chest",
    "kitchen": "fridge",
}
CONTAINERS = ("chest", "fridge")  # can be opened and closed; things lie in them, and on tables
TREASURE = "stale food"
FOOD = (TREASURE, "fresh food", "fruit")
#: thing -> the room whose furniture holds it at the start
THINGS = {
    TREASURE: "living room",
    "fresh food": "living room",
    "bowl": "bedroom",
    "coffee cup": "dining room",
    "plate": "dining room",
    "utensils": "office",
    "fruit": "kitchen",
}
HAND, FLOOR, EATEN = "hand", "floor", "eaten"
Place = tuple[str, str]


@dataclass(frozen=True)
class House:
    """One state of the house.

    Attributes:
        room: where the player is.
        open: the containers that are open.
        places: where each thing of :data:`THINGS` is, in their order: ``("hand", "")``, ``("eaten", "")``,
            ``("floor", room)`` or ``(furniture, room)``.
    """

    room: str
    open: frozenset[str] = frozenset()
    places: tuple[Place, ...] = tuple((FURNITURE[room], room) for room in THINGS.values())

    @property
    def furniture(self) -> str | None:
        """What stands in the room."""
        return FURNITURE.get(self.room)

    @property
    def reachable(self) -> bool:
        """Whether there is furniture here that things can be taken from and put on or into."""
        return self.furniture is not None and (self.furniture not in CONTAINERS or self.furniture in self.open)

    @property
    def held(self) -> list[str]:
        """Things in the hand, sorted."""
        return self.at(HAND, "")

    @property
    def treasure(self) -> Place:
        """Where the stale food is."""
        return self.places[0]

    @property
    def solved(self) -> bool:
        """The stale food is in the fridge, and the fridge is closed."""
        return self.treasure[0] == "fridge" and "fridge" not in self.open

    @property
    def failed(self) -> bool:
        """The stale food is eaten."""
        return self.treasure[0] == EATEN

    def at(self, place: str, room: str) -> list[str]:
        """The things at a place, sorted."""
        return sorted(thing for thing, where in zip(THINGS, self.places, strict=True) if where == (place, room))

    def commands(self) -> tuple[str, ...]:
        """Everything that can be done now, sorted."""
        return _commands(self)

    def after(self, command: str) -> House | None:
        """The state after a command; ``None`` if it cannot be done now."""
        return _after(self, command) if command in _commands(self) else None


# The same states come up again and again. The bounds keep the memory of a long collection from growing.
@lru_cache(maxsize=50_000)
def _commands(house: House) -> tuple[str, ...]:
    furniture = house.furniture
    found = [f"go {direction}" for direction in EXITS[house.room]]
    found += [f"take {thing}" for thing in house.at(FLOOR, house.room)]
    if furniture in CONTAINERS:
        found.append(f"close {furniture}" if furniture in house.open else f"open {furniture}")
    if furniture is not None and house.reachable:
        found += [f"take {thing} from {furniture}" for thing in house.at(furniture, house.room)]
        put = "insert {} into {}" if furniture in CONTAINERS else "put {} on {}"
        found += [put.format(thing, furniture) for thing in house.held]
    for thing in house.held:
        found.append(f"drop {thing}")
        if thing in FOOD:
            found.append(f"eat {thing}")
    return tuple(sorted(found))


@lru_cache(maxsize=50_000)
def _after(house: House, command: str) -> House:
    verb, _, rest = command.partition(" ")
    if verb == "go":
        return replace(house, room=EXITS[house.room][rest])
    if verb == "open":
        return replace(house, open=house.open | {rest})
    if verb == "close":
        return replace(house, open=house.open - {rest})
    here = (str(house.furniture), house.room)
    ends = {"take": (HAND, ""), "drop": (FLOOR, house.room), "eat": (EATEN, ""), "put": here, "insert": here}
    moved = next(thing for thing in THINGS if rest == thing or rest.startswith(thing + " "))
    places = tuple(ends[verb] if thing == moved else place for thing, place in zip(THINGS, house.places, strict=True))
    return replace(house, places=places)


def every_command() -> list[str]:
    """All commands that can ever be done, sorted."""
    found = {f"go {direction}" for exits in EXITS.values() for direction in exits}
    found |= {f"{verb} {container}" for verb in ("open", "close") for container in CONTAINERS}
    found |= {f"eat {thing}" for thing in FOOD}
    for thing in THINGS:
        found |= {f"take {thing}", f"drop {thing}", f"put {thing} on table"}
        found |= {f"take {thing} from {furniture}" for furniture in FURNITURE.values()}
        found |= {f"insert {thing} into {container}" for container in CONTAINERS}
    return sorted(found)


@cache
def way(start: str, end: str) -> tuple[str, ...]:
    """The directions of a shortest way between two rooms, the first in the order of :data:`EXITS`."""
    found: dict[str, tuple[str, ...]] = {start: ()}
    queue = deque([start])
    while end not in found:
        room = queue.popleft()
        for direction, there in EXITS[room].items():
            if there not in found:
                found[there] = (*found[room], direction)
                queue.append(there)
    return found[end]
