"""Scripted players of Text-Nav. They know the house and follow what happens in it from the commands given."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from qsft.envs.text_nav.env import TextNav
from qsft.envs.text_nav.house import CONTAINERS, EXITS, FLOOR, HAND, ROOMS, TREASURE, House, way
from qsft.envs.text_nav.texts import first_observation
from qsft.errors import DataError

if TYPE_CHECKING:
    from qsft.data.trajectory import Trajectory


class Skill(NamedTuple):
    """How a player goes about one part of the task.

    Attributes:
        right: probability that it takes the first step of the shortest way.
        astray: probability that it leaves by an exit that leads away, where there is one. Else it gives any command.
    """

    right: float
    astray: float = 0.0


class Player(NamedTuple):
    """One kind of player.

    Attributes:
        finding: its skill on the way to the stale food.
        bringing: its skill from there on: take it, carry it, put it into the fridge, close that.
    """

    finding: Skill
    bringing: Skill


class NavPolicy:
    """Players of some kinds; each episode is played by one of them, all kinds being equally likely.

    Nobody tells the policy who plays: a kind is as likely as its earlier commands make it, which is the same
    distribution of episodes as drawing a player at the start.

    Args:
        environment: the game to be played; its kind of observation is used, its state is not.
    """

    name: str
    PLAYERS: ClassVar[tuple[Player, ...]]

    def __init__(self, environment: TextNav) -> None:
        self._rooms = {first_observation(room, environment.observation): room for room in ROOMS}
        self.seed(0)

    def seed(self, seed: int) -> None:
        """Restarts the random generator."""
        self.rng = np.random.default_rng(seed)

    def act(self, histories: Sequence[Trajectory]) -> list[str]:
        """One command a history, ``"go west\\n"``.

        Raises:
            DataError: a history that does not begin as an episode with this kind of observation does.
        """
        return [self._command(history) + "\n" for history in histories]

    def _command(self, history: Trajectory) -> str:
        house, kinds = self._recall(history)
        commands = house.commands()
        point = self.rng.random()
        for command, *chances in zip(commands, *_chances(self.PLAYERS, house), strict=True):
            point -= sum(kind * chance for kind, chance in zip(kinds, chances, strict=True))
            if point < 0:
                return command
        return commands[-1]  # the chances add up to 1 but for rounding

    def _recall(self, history: Trajectory) -> tuple[House, list[float]]:
        """Where an episode stands, and how likely each kind of player is to have played it."""
        first = history.turns[0].text
        if first not in self._rooms:
            raise DataError(
                f"text-nav: no episode begins with {first!r:.150}; give the policy the environment's options"
            )
        house = House(self._rooms[first])
        kinds = [1 / len(self.PLAYERS)] * len(self.PLAYERS)
        for turn in history.agent_turns:
            command = turn.text.strip()
            after = house.after(command)
            if after is None:
                continue  # refused: nothing happened
            given = house.commands().index(command)
            chances = _chances(self.PLAYERS, house)
            likely = [kind * by[given] for kind, by in zip(kinds, chances, strict=True)]
            total = sum(likely)
            if total > 0:  # what no kind would do tells nothing about which it is
                kinds = [value / total for value in likely]
            house = after
        return house, kinds


class RandomPolicy(NavPolicy):
    """Any command that can be done."""

    name = "random"
    PLAYERS: ClassVar[tuple[Player, ...]] = (Player(Skill(0.0), Skill(0.0)),)


class OptimalPolicy(NavPolicy):
    """The ceiling: the shortest way to the end, which never takes more than 9 turns."""

    name = "optimal"
    PLAYERS: ClassVar[tuple[Player, ...]] = (Player(Skill(1.0), Skill(1.0)),)


class MixturePolicy(NavPolicy):
    """Players who know everything, but of whom some are steadier than others."""

    name = "mixture"
    PLAYERS: ClassVar[tuple[Player, ...]] = tuple(Player(Skill(right), Skill(right)) for right in (0.2, 0.5, 0.8))


class PopulationPolicy(NavPolicy):
    """Players who know half of the task. The behaviour policy.

    Finders know the way to the stale food, but not that it is to be taken, nor where it belongs. Bringers know what to
    do with it, but not where it is. In the half that it does not know, a player goes away from where it should go. So
    hardly anybody succeeds who does not begin near the food, but together they know every step from everywhere.
    """

    name = "population"
    PLAYERS: ClassVar[tuple[Player, ...]] = (
        Player(Skill(0.9), Skill(0.0, astray=0.9)),
        Player(Skill(0.0, astray=0.9), Skill(0.9)),
    )


@lru_cache(maxsize=50_000)
def best_command(house: House) -> str:
    """The first step of the shortest way to the end."""
    room = _next_room(house)
    if house.room != room:
        return f"go {way(house.room, room)[0]}"
    place, _ = house.treasure
    if place == "fridge":
        return "close fridge"  # it is open, or the episode would be over
    if place == HAND:
        return f"insert {TREASURE} into fridge" if "fridge" in house.open else "open fridge"
    if place == FLOOR:
        return f"take {TREASURE}"
    return f"take {TREASURE} from {place}" if place not in CONTAINERS or place in house.open else f"open {place}"


def _next_room(house: House) -> str:
    """The room where the next thing is to be done: that of the stale food, or the kitchen."""
    place, room = house.treasure
    return "kitchen" if place in (HAND, "fridge") else room


@lru_cache(maxsize=50_000)
def _chances(players: tuple[Player, ...], house: House) -> tuple[tuple[float, ...], ...]:
    """For each kind of player, the probability of each of ``house.commands()``."""
    commands, best, room = house.commands(), best_command(house), _next_room(house)
    finding = house.treasure[0] not in (HAND, "fridge") and house.room != room
    away = [
        f"go {direction}"
        for direction, there in EXITS[house.room].items()
        if len(way(there, room)) > len(way(house.room, room))
    ]
    found = []
    for player in players:
        skill = player.finding if finding else player.bringing
        astray = skill.astray if away else 0.0
        anything = (1 - skill.right - astray) / len(commands)
        found.append(
            tuple(
                anything + skill.right * (command == best) + astray * (command in away) / max(len(away), 1)
                for command in commands
            )
        )
    return tuple(found)
