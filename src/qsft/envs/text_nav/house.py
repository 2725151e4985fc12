"""The house: its rooms and things, and what each command does to them."""

from __future__ import annotations

from collections import deque
from functools import cache

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


class House:
    """One state of the house, changed by :meth:`do`.

    Attributes:
        room: where the player is.
        open: the containers that are open.
        places: where each thing is: ``("hand", "")``, ``("eaten", "")``, ``("floor", room)`` or ``(furniture, room)``.
    """

    def __init__(self, room: str) -> None:
        self.room = room
        self.open: set[str] = set()
        self.places = {thing: (FURNITURE[room], room) for thing, room in THINGS.items()}

    def copy(self) -> House:
        """The same state, to be changed by itself."""
        house = House(self.room)
        house.open, house.places = set(self.open), dict(self.places)
        return house

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
    def solved(self) -> bool:
        """The stale food is in the fridge, and the fridge is closed."""
        return self.places[TREASURE][0] == "fridge" and "fridge" not in self.open

    @property
    def failed(self) -> bool:
        """The stale food is eaten."""
        return self.places[TREASURE][0] == EATEN

    def at(self, place: str, room: str) -> list[str]:
        """The things at a place, sorted."""
        return sorted(thing for thing, where in self.places.items() if where == (place, room))

    def commands(self) -> list[str]:
        """Everything that can be done now, sorted."""
        found = [f"go {direction}" for direction in EXITS[self.room]]
        found += [f"take {thing}" for thing in self.at(FLOOR, self.room)]
        if self.furniture in CONTAINERS:
            found.append(f"close {self.furniture}" if self.furniture in self.open else f"open {self.furniture}")
        if self.furniture is not None and self.reachable:
            found += [f"take {thing} from {self.furniture}" for thing in self.at(self.furniture, self.room)]
            put = "insert {} into {}" if self.furniture in CONTAINERS else "put {} on {}"
            found += [put.format(thing, self.furniture) for thing in self.held]
        for thing in self.held:
            found.append(f"drop {thing}")
            if thing in FOOD:
                found.append(f"eat {thing}")
        return sorted(found)

    def do(self, command: str) -> bool:
        """Does a command; ``False``, and nothing changed, if it cannot be done now."""
        if command not in self.commands():
            return False
        verb, _, rest = command.partition(" ")
        if verb == "go":
            self.room = EXITS[self.room][rest]
        elif verb == "open":
            self.open.add(rest)
        elif verb == "close":
            self.open.remove(rest)
        else:
            thing = next(thing for thing in THINGS if rest == thing or rest.startswith(thing + " "))
            here = (str(self.furniture), self.room)
            self.places[thing] = {
                "take": (HAND, ""),
                "drop": (FLOOR, self.room),
                "eat": (EATEN, ""),
                "put": here,
                "insert": here,
            }[verb]
        return True


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
