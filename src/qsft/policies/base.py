"""The one contract for everything that can play."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from qsft.data.trajectory import Trajectory


@runtime_checkable
class Policy(Protocol):
    """Chooses the agent's next turn for a batch of unfinished episodes.

    ``act`` gets histories whose last turn is the environment's and returns one action text per history, in order.
    ``seed`` restarts the policy's random generator: after it, the same calls give the same actions.
    """

    name: str

    def act(self, histories: Sequence[Trajectory]) -> list[str]: ...

    def seed(self, seed: int) -> None: ...
