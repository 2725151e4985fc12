"""Exchanges: turns of the environment together with the agent's turns that answer them."""

from __future__ import annotations

from collections.abc import Sequence

from qsft.data.trajectory import Turn


def exchange_starts(turns: Sequence[Turn]) -> list[int]:
    """Index of each exchange's first turn; system turns at the start belong to none."""
    first = next((i for i, turn in enumerate(turns) if turn.role != "system"), len(turns))
    return [first, *(i for i in range(first + 1, len(turns)) if turns[i - 1].is_agent and not turns[i].is_agent)]


def newest_exchanges(turns: Sequence[Turn], count: int | None) -> Sequence[Turn]:
    """The system turns at the start and the last ``count`` exchanges; ``None``: all of them."""
    starts = exchange_starts(turns)
    return turns if count is None or len(starts) <= count else [*turns[: starts[0]], *turns[starts[-count] :]]
