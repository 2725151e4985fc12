"""`Trajectory`: the one data structure that flows from an environment to the loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

AGENT_ROLE = "assistant"
ENVIRONMENT_ROLES = ("system", "user", "tool")
Ended = Literal["terminated", "truncated"]


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of an episode.

    Args:
        role: ``"assistant"`` for the agent; ``"system"``, ``"user"`` or ``"tool"`` for the environment.
        text: what was said, exactly. Games keep their newlines.
        reward: reward the agent received for this turn (agent turns only; ``None`` while it is not known yet).
        images: the images that the message shows, in order: paths of files, or (of an episode in play) the content of
            such files.
    """

    role: str
    text: str
    reward: float | None = None
    images: tuple[str | bytes, ...] = ()

    @property
    def is_agent(self) -> bool:
        return self.role == AGENT_ROLE


@dataclass(slots=True)
class Trajectory:
    """One episode: its turns in order, and how it ended.

    ``ended`` is ``"terminated"`` when the episode is over for good (the value after it is 0), ``"truncated"`` when a
    limit cut it (the value after it is unknown), and ``None`` while it is being played. ``metadata`` is free; nothing
    in it is seen by a model.
    """

    turns: list[Turn] = field(default_factory=list)
    ended: Ended | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def agent_turns(self) -> Iterator[Turn]:
        return (turn for turn in self.turns if turn.is_agent)

    def histories(self) -> list[Trajectory]:
        """What the agent saw before each of its turns, in order: the turns up to there, unfinished, without metadata."""
        return [Trajectory(self.turns[:i]) for i, turn in enumerate(self.turns) if turn.is_agent]

    @property
    def rewards(self) -> list[float]:
        """Reward of each agent turn, in order. Turns whose reward is not known yet are left out."""
        return [turn.reward for turn in self.agent_turns if turn.reward is not None]

    @property
    def total_return(self) -> float:
        """Undiscounted sum of the rewards."""
        return float(sum(self.rewards))
