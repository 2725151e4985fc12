"""What there is in the world: the tables ``objects.tsv`` and ``receptacles.tsv``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

ROOMS = ("kitchen", "livingroom", "bedroom", "bathroom")
#: what ``tables`` stands for in the column ``places``: they take nearly everything
_TABLES = ("coffeetable", "countertop", "diningtable", "sidetable")
_PROPS = {
    "move": "pickupable",
    "hold": "isreceptacleobject",
    "clean": "cleanable",
    "heat": "heatable",
    "cool": "coolable",
    "slice": "sliceable",
    "use": "toggleable",
}


@dataclass(frozen=True)
class ObjectType:
    """A row of ``objects.tsv``.

    Attributes:
        props: what can be done with it, in the original's words.
        rooms: room -> probability that a house's room of that kind has some.
        places: the receptacle types that may hold it.
    """

    name: str
    props: frozenset[str]
    rooms: dict[str, float]
    places: frozenset[str]


@dataclass(frozen=True)
class ReceptacleType:
    """A row of ``receptacles.tsv``.

    Attributes:
        openable: begins closed, and can be opened and closed.
        rooms: room -> (probability that there are some, fewest, most).
    """

    name: str
    openable: bool
    rooms: dict[str, tuple[float, int, int]]

    @property
    def names(self) -> list[str]:
        """Of all that any room may have: ``["shelf 1", "shelf 2", ...]``."""
        return [f"{self.name} {n + 1}" for n in range(max(most for _, _, most in self.rooms.values()))]


@cache
def object_types() -> dict[str, ObjectType]:
    """By name, in alphabetical order."""
    found = {}
    for row in _rows("objects.tsv"):
        rooms = {room: float(row[room]) for room in ROOMS if row[room] != "-"}
        places = set(row["places"].split())
        if "tables" in places:
            places = (places - {"tables"}) | set(_TABLES)
        props = frozenset(_PROPS[word] for word in row["can"].split())
        found[row["object"]] = ObjectType(row["object"], props, rooms, frozenset(places))
    return found


@cache
def receptacle_types() -> dict[str, ReceptacleType]:
    """By name, in alphabetical order."""
    found = {}
    for row in _rows("receptacles.tsv"):
        rooms = {}
        for room in ROOMS:
            if row[room] != "-":
                chance, fewest, most = row[room].split()
                rooms[room] = (float(chance), int(fewest), int(most))
        found[row["receptacle"]] = ReceptacleType(row["receptacle"], row["openable"] == "yes", rooms)
    return found


def _rows(name: str) -> list[dict[str, str]]:
    text = files("qsft.envs.alfworld").joinpath(name).read_text(encoding="utf-8")
    header, *lines = (line.split("\t") for line in text.splitlines())
    return [dict(zip(header, line, strict=True)) for line in lines]
