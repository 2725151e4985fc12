"""The texts of the world. Everything that is said is said here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

WELCOME = "-= Welcome to TextWorld, ALFRED! =-"
IN_THE_MIDDLE = "You are in the middle of a room. Looking quickly around you, you see "
TASK = "Your task is to: "
NOTHING_HAPPENS = "Nothing happens."
#: task type -> the wordings of its goal, with ``{0}`` the object's type and ``{1}`` the receptacle's, or the lamp's
GOALS = {
    "pick_and_place_simple": ("put a {0} in {1}", "put some {0} on {1}"),
    "look_at_obj_in_light": ("look at {0} under the {1}", "examine the {0} with the {1}"),
    "pick_clean_then_place_in_recep": ("put a clean {0} in {1}", "clean some {0} and put it in {1}"),
    "pick_heat_then_place_in_recep": ("put a hot {0} in {1}", "heat some {0} and put it in {1}"),
    "pick_cool_then_place_in_recep": ("put a cool {0} in {1}", "cool some {0} and put it in {1}"),
    "pick_two_obj_and_place": ("put two {0} in {1}", "find two {0} and put them in {1}"),
}
#: what is said after a command, with ``{0}`` the object, or else the receptacle, and ``{1}`` the second name
ANSWERS = {
    "open": "You open the {0}. ",
    "close": "You close the {0}.",
    "take": "You pick up the {0} from the {1}.",
    "use": "You turn on the {0}.",  # each time, as in the original
    "slice": "You sliced the {0} with the {1}.",
    "clean": "You clean the {0} using the {1}.",
    "heat": "You heat the {0} using the {1}.",
    "cool": "You cool the {0} using the {1}.",
}
EMPTY_HANDED = "You are not carrying anything."
#: in texts to pretrain on, of what was not seen so far
SEEN_NOWHERE = "You see nothing."
_HELP = (
    "You can: look, inventory, go to (receptacle), open (receptacle), close (receptacle), take (object) from "
    "(receptacle), {put}, examine (something), use (object), heat (object) with (receptacle), clean (object) with "
    "(receptacle), cool (object) with (receptacle), slice (object) with (object), help."
)


@dataclass(frozen=True)
class Wording:
    """What changed between the versions of the original.

    Attributes:
        put: the command that puts an object down, with ``{0}`` the object and ``{1}`` the receptacle.
        put_answer: what is said then.
        arrive: what is said on arriving, with ``{0}`` the receptacle and ``{1}`` the number of its location.
        help: whether there is a command ``help``.
    """

    put: str
    put_answer: str
    arrive: str
    help: bool


#: ``"move"``: since 0.4; ``"put"``: before, as in the prompts of ReAct and all that build on them.
WORDINGS = {
    "move": Wording("move {0} to {1}", "You move the {0} to the {1}.", "You arrive at {0}. ", True),
    "put": Wording("put {0} in/on {1}", "You put the {0} in/on the {1}.", "You arrive at loc {1}. ", False),
}


def listing(names: Iterable[str], article: str = "a ") -> str:
    """``"a book 1, a pen 2, and a pen 1"``; two have a comma as well, as in the original."""
    named = [article + name for name in names]
    if not named:
        return "nothing"
    return ", ".join([*named[:-1], "and " + named[-1]]) if len(named) > 1 else named[0]


def intro(receptacles: Iterable[str], goal: str) -> str:
    """The first observation."""
    return f"{WELCOME}\n\n{IN_THE_MIDDLE}{listing(receptacles)}.\n\n{TASK}{goal}."


def task_sentence(first: str) -> str:
    """``"Your task is to: put a box in sidetable."`` of a first observation."""
    return TASK + first.partition(TASK)[2]


def reminded(answer: str, first: str) -> str:
    """An answer with the task of the first observation behind it."""
    return f"{answer}\n{task_sentence(first)}"


def without_reminder(text: str) -> str:
    """The answer alone."""
    return text.partition(f"\n{TASK}")[0]


def contents(receptacle: str, openable: bool, opened: bool, objects: Sequence[str]) -> str:
    """What one sees in or on a receptacle."""
    if not openable:
        return f"On the {receptacle}, you see {listing(objects)}."
    if not opened:
        return f"The {receptacle} is closed."
    return f"The {receptacle} is open. In it, you see {listing(objects)}."


def facing(receptacles: Sequence[str]) -> str:
    """The answer to ``look``; at the start there is nothing to face, and nothing is seen (as in the original)."""
    if not receptacles:
        return IN_THE_MIDDLE + "nothing."
    return f"You are facing the {listing(receptacles, article='')}. Next to it, you see nothing."


def carrying(held: str | None) -> str:
    """The answer to ``inventory``."""
    return EMPTY_HANDED if held is None else f"You are carrying: a {held}."


def held_object(name: str, is_receptacle: bool, hot: bool, cool: bool, clean: bool, is_sliced: bool) -> str:
    """The answer to ``examine`` of what is in the hand. Of an object that holds others its state is not told."""
    if is_receptacle:
        return f"This is a normal {name}. In it, you see nothing."
    warmth = "hot" if hot else "cool" if cool else ""
    words = [" and ".join(word for word in (warmth, "clean" if clean else "") if word), "sliced" if is_sliced else ""]
    state = " ".join(word for word in words if word)
    if not state:
        return f"There's nothing special about {name}."
    return f"This is a {'cold' if state == 'cool' else state} {name}."


def help_text(wording: Wording) -> str:
    """The answer to ``help``; the words are ours, the original's are a table."""
    return _HELP.format(put=wording.put.format("(object)", "(receptacle)"))
