"""The texts of the house."""

from __future__ import annotations

from collections.abc import Sequence

from qsft.envs.text_nav.house import CONTAINERS, EXITS, FLOOR, FURNITURE, ROOMS, THINGS, House, every_command

OBSERVATIONS = ("full", "partial")
OBJECTIVE = "Your objective is to put the stale food on the table in the living room into the fridge in the kitchen.\n"
REFUSED = "You cannot do that."
SUCCESS = "You close the fridge. You have reached your objective.\n"
FAILURE = "You eat the stale food. You have failed your objective.\n"


def view(house: House, observation: str) -> str:
    """What the room looks like, in one line; ``"partial"`` does not name it."""
    found = [f"You are in the {house.room}."] if observation == "full" else []
    if house.furniture is not None:
        found.append(_furniture(house, house.furniture))
    floor = house.at(FLOOR, house.room)
    if floor:
        found.append(f"On the floor you see {_listed(floor)}.")
    exits = sorted(EXITS[house.room])
    found.append(f"There {'is an exit' if len(exits) == 1 else 'are exits'} to the {_joined(exits)}.")
    return " ".join(found) + "\n"


def state_lines(house: House, observation: str) -> str:
    """What ends every observation: what is carried, unless ``"partial"``, and what can be done."""
    carried = f"You carry {_listed(house.held) or 'nothing'}.\n" if observation == "full" else ""
    return f"{carried}Admissible commands: {', '.join(house.commands())}\n"


def done_text(house: House, command: str) -> str:
    """What is said of a command that was done (and was not to go somewhere): ``"You take the bowl."``"""
    verb, _, rest = command.partition(" ")
    if verb == "open":
        inside = house.at(rest, house.room)
        return f"You open the {rest}. " + (f"In it you see {_listed(inside)}." if inside else "It is empty.")
    for link in (" from ", " on ", " into "):
        rest = rest.replace(link, f"{link}the ")
    return f"You {verb} the {rest}."


def symbols(whole_actions: bool) -> list[str]:
    """Everything between blanks in the texts, for a word-level tokenizer: each word with the marks that may follow it.

    With ``whole_actions`` also every command in one piece, and the marks that follow commands in the list of them.
    """
    texts = [OBJECTIVE, REFUSED, SUCCESS, FAILURE, "Admissible commands: You are in the On floor you see and a some"]
    texts += ["There is an exit are exits to the", "carry nothing open close go take from put on insert into drop eat"]
    texts += ["It is empty a closed open with in it", *ROOMS, *THINGS, *FURNITURE.values(), *EXITS["kitchen"], "south"]
    words = {word.rstrip(".,") for text in texts for word in text.split()}
    pieces = sorted(word + mark for word in words for mark in ("", ".", ","))
    return ["\n", *pieces, ",", *every_command()] if whole_actions else ["\n", *pieces]


def _furniture(house: House, name: str) -> str:
    link = "in" if name in CONTAINERS else "on"
    if not house.reachable:
        return f"There is a closed {name}."
    held = house.at(name, house.room)
    looks = f"an open {name}" if name in CONTAINERS else f"a {name}"
    return f"There is {looks} with {_listed(held) or 'nothing'} {link} it."


def _listed(things: Sequence[str]) -> str:
    """``"a bowl and some utensils"``; nothing for none."""
    return _joined([f"some {thing}" if thing.endswith(("s", "food")) else f"a {thing}" for thing in things])


def _joined(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
