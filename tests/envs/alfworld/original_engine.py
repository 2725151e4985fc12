"""Our generated games in the engine of the original (PyPI ``alfworld``), for comparison."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from qsft.envs.alfworld.facts import object_types, receptacle_types
from qsft.envs.alfworld.spec import Spec

# What became of the older wording's grammar in 0.4, as the package's own converter of old games has it.
OLDER = [
    ("You arrive at {r.name}.", "You arrive at {lend.name}."),
    ("move {o} to {r}", "put {o} in/on {r}"),
    ("You move the {o.name} to the {r.name}.", "You put the {o.name} in/on the {r.name}."),
]


def start(spec: Spec, wording: str = "move") -> tuple[Any, str, list[str]]:
    """The original's environment with the game loaded, its first observation and admissible commands."""
    import textworld
    from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
    from textworld.envs.pddl import PddlEnv, textgen

    remember_parses(textworld.logic)
    remember_parses(textgen)
    env = AlfredDemangler(PddlEnv(textworld.EnvInfos(won=True, admissible_commands=True)), shuffle=False)
    env.load(game_file(spec, wording))
    state = env.reset()
    return env, state.feedback, state["admissible_commands"]


def game_file(spec: Spec, wording: str = "move") -> dict[str, str]:
    """What a game file of the original holds."""
    import alfworld
    from alfworld.gen import goal_library

    data = Path(alfworld.__file__).parent / "data"
    domain, grammar = ((data / f"alfred.{kind}").read_text() for kind in ("pddl", "twl2"))
    if wording == "put":
        for new, old in OLDER:
            assert new in grammar
            grammar = grammar.replace(new, old)
        domain = domain[: domain.index("(:action help")] + ")"
        grammar = grammar[: grammar.index("action help {")]
    goal = goal_library.gdict[spec.task_type]["pddl"].replace("#", "-")
    goal = goal.format(obj=spec.object_type, recep=spec.receptacle_type, toggle=spec.toggle_type)
    return {
        "pddl_domain": domain,
        "grammar": grammar.replace("UNKNOWN GOAL", spec.goal_text),
        "pddl_problem": problem(spec) + goal,
    }


def remember_parses(module: ModuleType) -> None:
    """Makes the engine parse each of its templates once, instead of for every command of every step."""
    if not hasattr(module, "_parsed_anew"):
        module._parsed_anew = module._parse_and_convert
        parsed = cache(module._parsed_anew)
        module._parse_and_convert = lambda text, **how: deepcopy(parsed(text, **how))


def problem(spec: Spec) -> str:
    """The game in PDDL, up to its goal. Names are such that the original's numbering gives back ours."""
    lines = ["(define (problem game) (:domain alfred) (:objects", "agent1 - agent", "loc_bar_000 - location"]
    lines += [f"{name}type - otype" for name in object_types()]
    lines += [f"{name}type - rtype" for name in receptacle_types()]
    # The first location by name gets the highest number: the start, which is loc_bar_000.
    locations = sorted({receptacle.location for receptacle in spec.receptacles})
    assert locations == list(range(1, len(locations) + 1))
    at = {receptacle.name: f"loc_bar_{999 - receptacle.location}" for receptacle in spec.receptacles}
    lines += [f"{place} - location" for place in sorted(set(at.values()))]
    facts = ["(atlocation agent1 loc_bar_000)"]
    for receptacle in spec.receptacles:
        name = mangled(receptacle.name)
        lines.append(f"{name} - receptacle")
        facts.append(f"(receptacletype {name} {receptacle.type}type)")
        facts.append(f"(receptacleatlocation {name} {at[receptacle.name]})")
        facts += [f"(openable {name})"] if receptacle.openable else []
        facts += [f"(opened {name})"] if receptacle.open else []
    for thing in spec.things:
        name = mangled(thing.name)
        lines.append(f"{name} - object")
        facts.append(f"(objecttype {name} {thing.type}type)")
        facts.append(f"(inreceptacle {name} {mangled(thing.within)})")
        facts.append(f"(objectatlocation {name} {at[thing.within]})")
        facts += [f"({prop} {name})" for prop in sorted(thing.props)]
    for receptacle_type, types in spec.can_contain.items():
        facts += [f"(cancontain {receptacle_type}type {each}type)" for each in sorted(types)]
    return "\n".join([*lines, ")", "(:init", *facts, ")"])


def mangled(name: str) -> str:
    """``"shelf 2" -> "shelf_bar_998"``: of each type the first by name gets the highest number."""
    kind, number = name.split()
    if kind.endswith("basin"):
        return f"{kind.removesuffix('basin')}_bar_{1000 - int(number)}_bar_{kind}"
    return f"{kind}_bar_{1000 - int(number)}"
