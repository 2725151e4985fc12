"""The texts of the house."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from qsft.envs.text_nav.house import (
    CONTAINERS,
    EXITS,
    FLOOR,
    FURNITURE,
    ROOMS,
    THINGS,
    House,
    every_command,
)

OBSERVATIONS = ("full", "partial")
OBJECTIVE = "Your objective is to put the stale food on the table in the living room into the fridge in the kitchen."
REFUSED = "You cannot do that."
SUCCESS = "You close the fridge. You have reached your objective.\n"
FAILURE = "You eat the stale food. You have failed your objective.\n"
COMMANDS = "Admissible commands: "
BETWEEN = " | "  # a word of its own, so that a command in the list is spelt as the command given


def observation_text(house: House, observation: str, news: str | None, look: bool) -> str:
    """What a player is told.

    Args:
        house: the state now.
        observation: ``"full"`` tells where one is and what one carries, ``"partial"`` does not.
        news: what comes first, if anything does.
        look: whether the room is described, as it is when one comes in.
    """
    here = [f"You are in the {house.room}.", _carry(house.held)] if observation == "full" else []
    if look:
        here += _room(house)
    lines = [news, " ".join(here), COMMANDS + BETWEEN.join(house.commands())]
    return "".join(line + "\n" for line in lines if line)


def first_observation(room: str, observation: str) -> str:
    """What an episode begins with in a room."""
    return observation_text(House(room), observation, OBJECTIVE, look=True)


def done_text(house: House, command: str) -> str:
    """What is said of a command that was done (and was not to go somewhere): ``"You take the bowl."``"""
    verb, _, rest = command.partition(" ")
    if verb == "open":
        return f"You open the {rest}. " + _inside(house.at(rest, house.room))
    for link in (" from ", " on ", " into "):
        rest = rest.replace(link, f"{link}the ")
    return f"You {verb} the {rest}."


def symbols(observation: str, whole_actions: bool) -> list[str]:
    """Everything between blanks in the texts, for a word-level tokenizer; the commands in one piece if asked for."""
    pieces = {piece for text in _sentences(observation) for piece in text.split()}
    pieces.update(BETWEEN.split())
    for command in every_command():
        pieces.update([command] if whole_actions else command.split())
    return ["\n", *sorted(pieces)]


def _sentences(observation: str) -> Iterator[str]:
    """Every sentence that a word can be in. Lists are of up to three things: after that, no new words come."""
    yield from (OBJECTIVE, REFUSED, SUCCESS, FAILURE, COMMANDS)
    for things in (list(some) for count in range(4) for some in combinations(sorted(THINGS), count)):
        for furniture in set(FURNITURE.values()):
            yield _furniture(furniture, things)
        yield _inside(things)
        if things:
            yield _floor(things)
        if observation == "full":
            yield _carry(things)
    for room in ROOMS:
        yield _exits(room)
        yield from (f"There is a closed {name}." for name in CONTAINERS)
        if observation == "full":
            yield f"You are in the {room}."
    yield from (done_text(House(ROOMS[0]), command) for command in every_command() if not command.startswith("go "))


def _room(house: House) -> list[str]:
    found = []
    if house.furniture is not None and house.reachable:
        found.append(_furniture(house.furniture, house.at(house.furniture, house.room)))
    elif house.furniture is not None:
        found.append(f"There is a closed {house.furniture}.")
    floor = house.at(FLOOR, house.room)
    return [*found, *([_floor(floor)] if floor else []), _exits(house.room)]


def _furniture(name: str, things: Sequence[str]) -> str:
    looks, link = (f"an open {name}", "in") if name in CONTAINERS else (f"a {name}", "on")
    return f"There is {looks} with {_listed(things) or 'nothing'} {link} it."


def _inside(things: Sequence[str]) -> str:
    return f"In it you see {_listed(things)}." if things else "It is empty."


def _floor(things: Sequence[str]) -> str:
    return f"On the floor you see {_listed(things)}."


def _exits(room: str) -> str:
    exits = sorted(EXITS[room])
    return f"There {'is an exit' if len(exits) == 1 else 'are exits'} to the {_joined(exits)}."


def _carry(things: Sequence[str]) -> str:
    return f"You carry {_listed(things) or 'nothing'}."


def _listed(things: Sequence[str]) -> str:
    """``"a bowl and some utensils"``; nothing for none."""
    return _joined([f"some {thing}" if thing.endswith(("s", "food")) else f"a {thing}" for thing in things])


def _joined(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
