"""The rules: one game, its commands, what they change and what is answered.

The rules are those of the original's PDDL domain as its engine plays them, quirks included (README.md lists these).
"""

from __future__ import annotations

from qsft.envs.alfworld import texts
from qsft.envs.alfworld.spec import Receptacle, Spec, Thing
from qsft.envs.alfworld.texts import Wording

Action = tuple[str, Thing | None, Receptacle | None]

#: what slices
KNIVES = ("knife", "butterknife")
#: verb -> what an object must be, and the type of the receptacle that does it
APPLIANCES = {
    "clean": ("cleanable", "sinkbasin"),
    "heat": ("heatable", "microwave"),
    "cool": ("coolable", "fridge"),
}
_STATE_OF_TASK = {
    "pick_clean_then_place_in_recep": "clean",
    "pick_heat_then_place_in_recep": "hot",
    "pick_cool_then_place_in_recep": "cool",
}


class Game:
    """One game from a spec.

    Attributes:
        won: whether the goal holds now.
        held: the object in the hand.
        location: where one stands; ``None`` at the start, in the middle of the room.
    """

    def __init__(self, spec: Spec, wording: Wording) -> None:
        self.spec = spec
        self.wording = wording
        self.location: int | None = None
        self.held: Thing | None = None
        self._receptacles = {receptacle.name: receptacle for receptacle in spec.receptacles}
        self._order = {thing.name: number for number, thing in enumerate(spec.things)}
        self._open = {receptacle.name for receptacle in spec.receptacles if receptacle.open}
        self._inside: dict[str, list[Thing]] = {name: [] for name in self._receptacles}
        for thing in spec.things:
            self._inside[thing.within].append(thing)
        self._states: dict[str, set[str]] = {thing.name: set() for thing in spec.things}
        at: dict[int | None, list[Receptacle]] = {}
        for receptacle in spec.receptacles:
            at.setdefault(receptacle.location, []).append(receptacle)
        self._at = at
        self._anywhere: dict[str, Action] = {"inventory": ("inventory", None, None), "look": ("look", None, None)}
        if wording.help:
            self._anywhere["help"] = ("help", None, None)
        for receptacle in spec.receptacles:
            self._anywhere[f"go to {receptacle.name}"] = ("go", None, receptacle)
        self.won = False
        self._update()

    @property
    def intro(self) -> str:
        """The first observation."""
        return texts.intro(self._receptacles, self.spec.goal_text)

    @property
    def admissible(self) -> list[str]:
        """The commands that do something now, sorted."""
        return sorted(self._actions)

    def step(self, command: str) -> str:
        """Carries out a command and returns what is answered. Blanks around it do not matter, its case does."""
        action = self._actions.get(command.strip())
        if action is None:
            return texts.NOTHING_HAPPENS
        answer = self._do(*action)
        self._update()
        return answer

    def _update(self) -> None:
        """Finds the commands that now do something, and whether the goal holds."""
        actions = dict(self._anywhere)
        for receptacle in self._at.get(self.location, ()):
            name = receptacle.name
            del actions[f"go to {name}"]
            actions[f"examine {name}"] = ("examine receptacle", None, receptacle)
            if receptacle.openable:
                verb = "close" if name in self._open else "open"
                actions[f"{verb} {name}"] = (verb, None, receptacle)
            reachable = not receptacle.openable or name in self._open
            for thing in self._inside[name]:
                # A lamp can be used, and food sliced, behind a closed door: the original asks where it is, no more.
                if "toggleable" in thing.props:
                    actions[f"use {thing.name}"] = ("use", thing, receptacle)
                if reachable and self.held is None and "pickupable" in thing.props:
                    actions[f"take {thing.name} from {name}"] = ("take", thing, receptacle)
                if self.held is not None and self.held.type in KNIVES and "sliceable" in thing.props:
                    actions[f"slice {thing.name} with {self.held.name}"] = ("slice", thing, receptacle)
            if self.held is not None:
                if reachable and self.held.type in self.spec.can_contain.get(receptacle.type, ()):
                    actions[self.wording.put.format(self.held.name, name)] = ("put", self.held, receptacle)
                for verb, (needed, appliance) in APPLIANCES.items():
                    if receptacle.type == appliance and needed in self.held.props:
                        actions[f"{verb} {self.held.name} with {name}"] = (verb, self.held, receptacle)
        if self.held is not None:
            actions[f"examine {self.held.name}"] = ("examine object", self.held, None)
        self._actions = actions
        self.won = self._goal_holds()

    def _do(self, verb: str, thing: Thing | None, receptacle: Receptacle | None) -> str:
        if thing is None:
            return self._look(verb, receptacle)
        states = self._states[thing.name]
        if receptacle is None:
            return texts.held_object(
                thing.name,
                "isreceptacleobject" in thing.props,
                hot="hot" in states,
                cool="cool" in states,
                clean="clean" in states,
                is_sliced="sliced" in states,
            )
        if verb == "take":
            self._inside[receptacle.name].remove(thing)
            self.held = thing
            return texts.ANSWERS[verb].format(thing.name, receptacle.name)
        if verb == "put":
            inside = self._inside[receptacle.name]
            inside.append(thing)
            inside.sort(key=lambda each: self._order[each.name])
            self.held = None
            return self.wording.put_answer.format(thing.name, receptacle.name)
        if verb == "use":
            states.add("toggled")
            return texts.ANSWERS[verb].format(thing.name)
        if verb == "slice":
            assert self.held is not None
            states.add("sliced")
            return texts.ANSWERS[verb].format(thing.name, self.held.name)
        if verb == "clean":
            states.add("clean")
        else:
            states -= {"hot", "cool"}
            states.add("hot" if verb == "heat" else "cool")
        return texts.ANSWERS[verb].format(thing.name, receptacle.name)

    def _look(self, verb: str, receptacle: Receptacle | None) -> str:
        """Carries out the commands that concern no object."""
        if receptacle is None:
            if verb == "look":
                return texts.facing([each.name for each in self._at.get(self.location, ())])
            if verb == "inventory":
                return texts.carrying(self.held.name if self.held else None)
            return texts.help_text(self.wording)
        name = receptacle.name
        if verb == "close":
            self._open.discard(name)
            return texts.ANSWERS[verb].format(name)
        before = ""
        if verb == "go":
            self.location = receptacle.location
            before = self.wording.arrive.format(name, receptacle.location)
        elif verb == "open":
            self._open.add(name)
            before = texts.ANSWERS[verb].format(name)
        inside = [thing.name for thing in self._inside[name]]
        return before + texts.contents(name, receptacle.openable, name in self._open, inside)

    def _goal_holds(self) -> bool:
        spec = self.spec
        if spec.task_type == "look_at_obj_in_light":
            if self.held is None or self.held.type != spec.object_type:
                return False
            return any(
                thing.type == spec.toggle_type and "toggled" in self._states[thing.name]
                for receptacle in self._at.get(self.location, ())
                for thing in self._inside[receptacle.name]
            )
        state = _STATE_OF_TASK.get(spec.task_type)
        for receptacle in spec.receptacles:
            if receptacle.type == spec.receptacle_type:
                found = sum(
                    thing.type == spec.object_type and (state is None or state in self._states[thing.name])
                    for thing in self._inside[receptacle.name]
                )
                if found >= spec.count:
                    return True
        return False
