"""The original's recorded human shopping as trajectories."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from qsft.data.trajectory import AGENT_ROLE, Trajectory, Turn
from qsft.envs.webshop.fields import texts
from qsft.envs.webshop.original import OriginalCatalogue
from qsft.envs.webshop.products import NO_PRICE_LIMIT, Product
from qsft.envs.webshop.reward import reward
from qsft.envs.webshop.session import BACK, BUY, PREVIOUS, SUB_PAGES, parse_action
from qsft.errors import ConfigError, DataError

_FILE = "the original's il_trajs_finalized_images.jsonl"
_LIMIT = re.compile(r", and price lower than (\d+(?:\.\d+)?) dollars")
_SUB_PAGES = {page.lower() for page in SUB_PAGES}


def human_trajectories(
    path: str | os.PathLike[str], catalogue: OriginalCatalogue, unknown: str = "raise"
) -> Iterator[Trajectory]:
    """The original's recorded human shopping (``il_trajs_finalized_images.jsonl``) as trajectories.

    The recorded states are the observations, as they are (mode "text_rich"). The recording holds no scores: each
    purchase is judged anew, by the goal with the same instruction and the price limit that the instruction tells.
    Metadata: ``env``, ``policy`` (``"human"``), ``goal``, ``success``.

    Args:
        path: one JSON object a line, with ``states`` and ``actions``.
        catalogue: with human goals; it must hold what was bought.
        unknown: what to do with an episode whose goal or purchase is not in the catalogue: ``"raise"`` or ``"skip"``.

    Raises:
        DataError: a file or a line that cannot be read, or an unknown goal or product.
    """
    if unknown not in ("raise", "skip"):
        raise ConfigError(f"webshop: unknown={unknown!r}; use 'raise' or 'skip'")
    goals: dict[str, int] = {}
    for goal, text in enumerate(catalogue.instructions()):
        goals.setdefault(_plain(text), goal)
    for where, row in _rows(path):
        states, actions = texts(row, "states", where), texts(row, "actions", where)
        if not actions or not len(actions) <= len(states) <= len(actions) + 1:
            raise DataError(f"{where}: {len(states)} states for {len(actions)} actions; repair or drop the line")
        number = goals.get(_plain(_instruction(states[0])))
        score, problem = None, "its goal is none of the catalogue's"
        if number is not None:
            score, problem = _score(catalogue, number, states[0], actions)
        if number is None or score is None:
            if unknown == "skip":
                continue
            raise DataError(f"{where}: {problem}; load the whole catalogue, or pass unknown='skip'")
        yield _trajectory(states, actions, number, score)


def _rows(path: str | os.PathLike[str]) -> Iterator[tuple[str, Any]]:
    """Each line's place and content; blank lines are none."""
    number = 0
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    where = f"{os.fspath(path)}: line {number}"
                    try:
                        row = json.loads(line)
                    except (ValueError, RecursionError):
                        raise DataError(f"{where}: not JSON; give {_FILE}") from None
                    yield where, row
    except UnicodeDecodeError:
        raise DataError(f"{os.fspath(path)}: after line {number}: not UTF-8; give {_FILE}") from None
    except OSError as error:
        raise DataError(f"{os.fspath(path)}: cannot be read ({error.strerror}); give {_FILE}") from None


def _trajectory(states: Sequence[str], actions: Sequence[str], goal: int, score: float) -> Trajectory:
    turns = []
    for state, action in zip(states, actions, strict=False):
        turns += [Turn("user", state), Turn(AGENT_ROLE, action, 0.0)]
    turns[-1] = Turn(AGENT_ROLE, actions[-1], score)
    turns += [Turn("user", state) for state in states[len(actions) :]]
    bought = _verb_and_argument(actions[-1]) == ("click", BUY.lower())
    metadata = {"env": "webshop", "policy": "human", "goal": goal, "success": score == 1.0}
    return Trajectory(turns, "terminated" if bought else "truncated", metadata)


def _score(
    catalogue: OriginalCatalogue, goal_number: int, first: str, actions: Sequence[str]
) -> tuple[float | None, str]:
    """What the purchase at the end was worth (0 without one); else ``None`` and why that is unknown."""
    product: Product | None = None
    chosen: dict[str, str] = {}
    reading = False  # on a sub-page
    for action in actions:
        verb, argument = _verb_and_argument(action)
        if verb == "click" and argument == BUY.lower():
            break
        item = catalogue.number_of(argument.upper())
        if verb == "search" or argument == BACK.lower() or (argument == PREVIOUS.lower() and not reading):
            product, chosen = None, {}
        elif item is not None:
            product, chosen = catalogue.product(item), {}
        elif product is not None:
            names = [name for name, values in product.options.items() if argument in values]
            if names:
                chosen[names[-1]] = argument
        reading = argument in _SUB_PAGES
    else:
        return 0.0, ""
    if product is None:
        return None, "what was bought is not in the catalogue"
    found = _LIMIT.search(first)
    goal = catalogue.goal(goal_number)
    limit = float(found[1]) if found else NO_PRICE_LIMIT
    return reward(product, chosen, replace(goal, price_upper=limit)).total, ""


def _verb_and_argument(text: str) -> tuple[str, str]:
    action = parse_action(text)
    return (action.verb, action.argument.lower()) if action else ("", "")


def _instruction(state: str) -> str:
    """The instruction in a recorded first page; its title was another one in early recordings."""
    after = state.split("Instruction:", 1)[-1]
    return after.split("[button]", 1)[0]


def _plain(instruction: str) -> str:
    """What the original compares of two instructions."""
    text = instruction.lower().replace('"', "").replace("'", "").split(", and price lower than")[0]
    return text.strip().strip(".")
