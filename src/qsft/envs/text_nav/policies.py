"""Scripted players of Text-Nav. They know the house and follow what happens in it from the commands given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from qsft.envs.text_nav.env import TextNav, first_observation
from qsft.envs.text_nav.house import CONTAINERS, FLOOR, HAND, ROOMS, TREASURE, House, way
from qsft.errors import DataError

if TYPE_CHECKING:
    from qsft.data.trajectory import Trajectory


class NavPolicy(ABC):
    """A player that knows the house.

    Args:
        environment: the game to be played; its kind of observation is used, its state is not.
    """

    name: str

    def __init__(self, environment: TextNav) -> None:
        self._rooms = {first_observation(room, environment.observation): room for room in ROOMS}
        self.seed(0)

    def seed(self, seed: int) -> None:
        """Restarts the random generator."""
        self.rng = np.random.default_rng(seed)

    @abstractmethod
    def choose(self, house: House, earlier: Sequence[tuple[House, str]]) -> str:
        """The next command in ``house``, after the ``earlier`` states and what was done in each."""

    def act(self, histories: Sequence[Trajectory]) -> list[str]:
        """One command a history, ``"go west\\n"``.

        Raises:
            DataError: a history that does not begin as an episode with this kind of observation does.
        """
        return [self._command(history) + "\n" for history in histories]

    def _command(self, history: Trajectory) -> str:
        first = history.turns[0].text
        if first not in self._rooms:
            raise DataError(
                f"text-nav: no episode begins with {first!r:.150}; give the policy the environment's options"
            )
        house = House(self._rooms[first])
        earlier = []
        for turn in history.agent_turns:
            command = turn.text.strip()
            after = house.after(command)
            if after is not None:
                earlier.append((house, command))
                house = after
        return self.choose(house, earlier)


class RandomPolicy(NavPolicy):
    """Any command that can be done."""

    name = "random"

    def choose(self, house: House, earlier: Sequence[tuple[House, str]]) -> str:
        commands = house.commands()
        return commands[self.rng.integers(len(commands))]


class OptimalPolicy(NavPolicy):
    """The ceiling: the shortest way to the end, which never takes more than 9 turns."""

    name = "optimal"

    def choose(self, house: House, earlier: Sequence[tuple[House, str]]) -> str:
        return best_command(house)


class PopulationPolicy(NavPolicy):
    """Players who know the house in part or forget; each episode is played by one of them. The behaviour policy.

    One kind knows what to do in the bedroom, the bathroom, the office and the living room, where the food is; another
    in the dining room, the kitchen, the garden and the backyard, where the fridge is; the third everywhere, but it
    forgets. Where it knows, a player does the right thing with the probability ``STEADY`` of its kind; else, and
    anywhere else, anything that can be done. So few of them get the food into the fridge, but together they know every
    step.

    Nobody tells the policy who plays: a kind is as likely as its earlier commands make it, which is the same
    distribution of episodes as drawing a player at the start.
    """

    name = "population"
    #: for each kind: the rooms that it knows -> how steadily it does the right thing there
    STEADY: ClassVar[tuple[dict[str, float], ...]] = (
        dict.fromkeys(("bedroom", "bathroom", "office", "living room"), 0.9),
        dict.fromkeys(("dining room", "kitchen", "garden", "backyard"), 0.9),
        dict.fromkeys(ROOMS, 0.5),
    )

    def choose(self, house: House, earlier: Sequence[tuple[House, str]]) -> str:
        kinds = [1.0] * len(self.STEADY)
        for before, command in earlier:
            kinds = [
                kind * self._chance(steady, before, command) for kind, steady in zip(kinds, self.STEADY, strict=True)
            ]
            total = sum(kinds)
            kinds = [kind / total for kind in kinds]
        commands = house.commands()
        chances = [
            sum(kind * self._chance(steady, house, command) for kind, steady in zip(kinds, self.STEADY, strict=True))
            for command in commands
        ]
        return commands[int((np.cumsum(chances) <= self.rng.random() * sum(chances)).sum())]

    def _chance(self, steady: Mapping[str, float], house: House, command: str) -> float:
        sure = steady.get(house.room, 0.0)
        return sure * (command == best_command(house)) + (1 - sure) / len(house.commands())


@lru_cache(maxsize=50_000)
def best_command(house: House) -> str:
    """The first step of the shortest way to the end."""
    place, room = house.treasure
    if place == HAND or place == "fridge":
        room = "kitchen"
    if house.room != room:
        return f"go {way(house.room, room)[0]}"
    if place == "fridge":
        return "close fridge"  # it is open, or the episode would be over
    if place == HAND:
        return f"insert {TREASURE} into fridge" if "fridge" in house.open else "open fridge"
    if place == FLOOR:
        return f"take {TREASURE}"
    return f"take {TREASURE} from {place}" if place not in CONTAINERS or place in house.open else f"open {place}"
