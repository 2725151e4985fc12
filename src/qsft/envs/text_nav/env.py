"""Text-Nav as an environment: text in, text out."""

from __future__ import annotations

import string
from typing import Any, ClassVar

import gymnasium

from qsft.envs.base import Environment
from qsft.envs.text_nav.house import ROOMS, House
from qsft.envs.text_nav.texts import (
    FAILURE,
    OBSERVATIONS,
    REFUSED,
    SUCCESS,
    done_text,
    first_observation,
    observation_text,
    symbols,
)
from qsft.errors import ConfigError

TURNS = 15


class TextNav(Environment):
    """Carry the stale food from the living room into the fridge, and close it; after LMRL-Gym's game (see its README).

    An action is a command, ``"go west\\n"``; each observation ends with the list of those that can be done. Anything
    else is refused and costs a turn. Reward 1 for the turn that ends with the stale food in the closed fridge, else 0.
    Eating the stale food ends the episode, and so does the fifteenth turn (``terminated``: the limit is part of the
    game).

    At the end ``info`` holds ``success`` and ``position``, the room where it began.
    ``reset(options={"position": "kitchen"})`` pins that room.

    Args:
        observation: ``"full"`` tells after every command in which room one is and what one carries; ``"partial"`` neither.

    Raises:
        ConfigError: a value that is not allowed.
    """

    name: str = "text-nav"
    policies: ClassVar[dict[str, str]] = {
        "random": "qsft.envs.text_nav.policies:RandomPolicy",
        "mixture": "qsft.envs.text_nav.policies:MixturePolicy",
        "population": "qsft.envs.text_nav.policies:PopulationPolicy",
        "optimal": "qsft.envs.text_nav.policies:OptimalPolicy",
    }
    reset_options = ("position",)
    return_range = (0.0, 1.0)
    max_turns = TURNS

    def __init__(self, observation: str = "full") -> None:
        if observation not in OBSERVATIONS:
            raise ConfigError(f"text-nav: observation={observation!r} is unknown; use one of {', '.join(OBSERVATIONS)}")
        self.observation = observation
        self.action_space = gymnasium.spaces.Text(max_length=40, charset=string.printable)
        self.observation_space = gymnasium.spaces.Text(max_length=1000, charset=string.printable)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Starts an episode. ``options={"position": room}`` pins the room, else it is drawn uniformly.

        Raises:
            ConfigError: unknown option or room.
        """
        room = self.pins(options).get("position")
        if room is not None and room not in ROOMS:
            raise ConfigError(f"text-nav: position {room!r:.60} is no room; use one of {', '.join(ROOMS)}")
        super().reset(seed=seed, options=options)
        drawn = ROOMS[int(self.np_random.integers(len(ROOMS)))]
        self._start = drawn if room is None else room
        self._house = House(self._start)
        self._turns = 0
        return first_observation(self._start, self.observation), {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """One command.

        Raises:
            EpisodeError: the episode is over or was never started, or ``action`` is not a ``str``.
        """
        self.check_step(action)
        self._turns += 1
        command = action.strip()
        after = self._house.after(command)
        house = self._house = after or self._house
        solved = house.solved
        self._playing = not (solved or house.failed or self._turns == TURNS)
        info = {} if self._playing else {"success": solved, "position": self._start}
        if solved or house.failed:
            text = SUCCESS if solved else FAILURE
        elif after is not None and command.startswith("go "):
            text = observation_text(house, self.observation, None, look=True)
        else:
            news = REFUSED if after is None else done_text(house, command)
            text = observation_text(house, self.observation, news, look=False)
        return text, float(solved), not self._playing, False, info

    def symbols(self, whole_actions: bool = False) -> list[str]:
        """The words of the texts with their marks, and a newline; or the commands whole."""
        return symbols(self.observation, whole_actions)
