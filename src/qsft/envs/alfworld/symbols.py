"""The closed vocabulary of generated games, for a word-level tokenizer."""

from __future__ import annotations

from itertools import product

from qsft.envs.alfworld import texts
from qsft.envs.alfworld.engine import APPLIANCES
from qsft.envs.alfworld.facts import ROOMS, object_types, receptacle_types
from qsft.envs.alfworld.houses import COPIES
from qsft.envs.alfworld.texts import WORDINGS, Wording

_NAME = "@"  # stands for any name: what is glued to it is no symbol
_COMMANDS = ("look", "inventory", "help", "go to", "open", "close", "take from", "examine", "use", "slice with")


def symbols(wording: Wording) -> list[str]:
    """Everything between blanks in texts and commands, and a newline."""
    some = [_NAME, _NAME]
    said = [
        texts.intro(some, _NAME),
        texts.NOTHING_HAPPENS,
        texts.SEEN_NOWHERE,
        texts.facing([]),
        texts.facing(some),
        texts.carrying(None),
        texts.carrying(_NAME),
        *(
            texts.contents(_NAME, openable, opened, inside)
            for openable, opened in product((False, True), repeat=2)
            for inside in ([], some)
        ),
        *(texts.held_object(_NAME, *states) for states in product((False, True), repeat=5)),
        *(goal.format(_NAME, _NAME) for goals in texts.GOALS.values() for goal in goals),
        *(template.format(_NAME, _NAME) for template in (wording.put, wording.put_answer, wording.arrive)),
        *(f"{verb} {_NAME} with" for verb in APPLIANCES),
        *(answer.format(_NAME, _NAME) for answer in texts.ANSWERS.values()),
        *_COMMANDS,
    ]
    if wording.help:
        said.append(texts.help_text(wording))
    words = {word for text in said for word in text.split() if _NAME not in word}
    kinds = {*object_types(), *receptacle_types()}
    words |= kinds | {f"{kind}." for kind in kinds}  # a goal ends in one
    words |= {f"{number}{mark}" for number in range(1, _largest(wording) + 1) for mark in ("", ",", ".")}
    return ["\n", *sorted(words)]


def whole_parts() -> list[str]:
    """The parts of commands: verbs of two words and all names, ``go to`` and ``shelf 2``; and the marks behind names."""
    largest: dict[str, int] = dict.fromkeys(object_types(), max(COPIES))
    for kind in receptacle_types().values():
        largest[kind.name] = len(kind.names)
    names = [f"{kind} {number}" for kind, most in largest.items() for number in range(1, most + 1)]
    return ["go to", ",", ".", *sorted(names)]


def _largest(wording: Wording) -> int:
    """The largest number of an object, a receptacle or, where it is told, a location."""
    rooms = [[kind.rooms[room][2] for kind in receptacle_types().values() if room in kind.rooms] for room in ROOMS]
    if wording == WORDINGS["put"]:
        return max(max(COPIES), *(sum(most) for most in rooms))
    return max(max(COPIES), *(max(most) for most in rooms))
