"""Returns-to-go, and the range of returns that maps onto [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import datasets
import numpy as np

from qsft.data.files import row_number
from qsft.errors import ConfigError, DataError

GammaPer = Literal["turn", "token"]
_ROWS_A_BATCH = 1000
# Sums of rewards in another order differ in their last bits: not a violation.
_SLACK = 1e-6


@dataclass(frozen=True)
class ReturnRange:
    """Bounds of the return-to-go, in reward units; the affine map from them to [0, 1] and back.

    Values are learnt as fractions of this range (the likelihood ratio that holds them needs [0, 1]). Targets outside of
    it are clipped, so it must hold every return-to-go that the policy to be learnt can reach.

    Raises:
        ConfigError: ``low`` is not below ``high``, or one is not finite.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ConfigError(
                f"return range [{self.low:g}, {self.high:g}]: give two finite numbers, the lower one first"
            )

    def scale(self, value: Any) -> Any:
        """Reward units to [0, 1]. Numbers, arrays and tensors alike; not clipped."""
        return (value - self.low) / (self.high - self.low)

    def unscale(self, value: Any) -> Any:
        """Inverse of :meth:`scale`."""
        return self.low + value * (self.high - self.low)

    @classmethod
    def from_data(
        cls, rows: datasets.Dataset | Iterable[Mapping[str, Any]], gamma: float = 1.0, gamma_per: GammaPer = "turn"
    ) -> ReturnRange:
        """The smallest and the largest return-to-go over all tokens of the agent in the data.

        The 0 after the end of a terminated episode is not counted: no state stands there, and the target of the last
        token is its reward alone, which is a return-to-go itself. A truncated episode counts with the rewards it shows.
        A policy that joins the best pieces of several episodes may earn more than each of them: where the true bounds
        are known, give them.

        Args:
            rows: tokenised rows.
            gamma, gamma_per: the discount, once a turn or at every token.

        Raises:
            DataError: no rows, or every return-to-go is the same.
        """
        low, high = math.inf, -math.inf
        for _, first, last, _ in _batches(rows, gamma, gamma_per):
            if len(first):
                low = min(low, float(first.min()), float(last.min()))
                high = max(high, float(first.max()), float(last.max()))
        if low > high:
            raise DataError("return range: the data holds no turn of the agent; give some episodes")
        if low == high:
            raise DataError(
                f"return range: every return-to-go in the data is {low:g}, so nothing tells good turns from bad ones; "
                "add episodes with other rewards, or give the range that the task has"
            )
        return cls(low, high)

    def check(
        self,
        rows: datasets.Dataset | Iterable[Mapping[str, Any]],
        gamma: float = 1.0,
        gamma_per: GammaPer = "turn",
        source: str = "data",
    ) -> None:
        """Verify that every return-to-go of the data lies within the range.

        Args:
            source: how the error names the data, for example the file's path.

        Raises:
            DataError: naming the first row, by its ``episode`` if it has one, in which one does not.
        """
        slack = _SLACK * (self.high - self.low)
        for episodes, first, last, counts in _batches(rows, gamma, gamma_per):
            lowest, highest = np.minimum(first, last), np.maximum(first, last)
            wrong = np.flatnonzero((lowest < self.low - slack) | (highest > self.high + slack))
            if len(wrong):
                at = int(wrong[0])
                value = lowest[at] if lowest[at] < self.low - slack else highest[at]
                row = int(np.searchsorted(np.cumsum(counts), at, side="right"))
                number = row_number(source, int(episodes[row]))
                turn = at - int(counts[:row].sum()) + 1
                raise DataError(
                    f"{source}: row {number}: field rewards: the return-to-go at agent turn {turn} is "
                    f"{value:g}, outside of the return range [{self.low:g}, {self.high:g}]; "
                    "widen the range or mend the rewards"
                )


def returns_to_go(
    rewards: Sequence[float],
    gamma: float = 1.0,
    gamma_per: GammaPer = "turn",
    turn_lengths: Sequence[int] | None = None,
) -> np.ndarray:
    """Discounted sum of an episode's rewards from each turn's first token on.

    Args:
        rewards: one a turn of the agent, paid at the turn's last token.
        gamma: the discount.
        gamma_per: ``"turn"``: between two turns. ``"token"``: between two of the agent's tokens.
        turn_lengths: tokens of each turn; needed with ``"token"``.

    Returns:
        ``[turns]`` float64, in reward units.

    Raises:
        ConfigError: a discount outside of [0, 1], or ``"token"`` without lengths.
    """
    if gamma_per == "token" and turn_lengths is None:
        raise ConfigError("gamma_per token: needs turn_lengths; give the tokens of each turn")
    values = np.asarray(rewards, np.float64)
    lengths = np.ones(len(values), np.int64) if turn_lengths is None else np.asarray(turn_lengths, np.int64)
    return _returns(values, lengths, np.array([len(values)]), gamma, gamma_per)[0]


def _returns(
    rewards: np.ndarray, lengths: np.ndarray, counts: np.ndarray, gamma: float, gamma_per: GammaPer
) -> tuple[np.ndarray, np.ndarray]:
    """Returns-to-go at the first and at the last token of each turn, of many episodes laid end to end.

    Between the two they change monotonically, so that these are the extremes.
    """
    if not 0.0 <= gamma <= 1.0:
        raise ConfigError(f"gamma: {gamma}; give a number from 0 to 1")
    if gamma_per not in ("turn", "token"):
        raise ConfigError(f"gamma_per: {gamma_per!r}; use turn or token")
    within = gamma ** (lengths - 1.0) if gamma_per == "token" else np.ones(len(rewards))
    ends = np.cumsum(counts)
    first = np.zeros(len(rewards))
    last = np.zeros(len(rewards))
    following = np.zeros(len(counts))
    for back in range(1, int(counts.max(initial=0)) + 1):
        alive = counts >= back
        at = ends[alive] - back
        last[at] = rewards[at] + gamma * following[alive]
        first[at] = within[at] * last[at]
        following[alive] = first[at]
    return first, last


def _batches(
    rows: datasets.Dataset | Iterable[Mapping[str, Any]], gamma: float, gamma_per: GammaPer
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Of some rows at a time: episodes ``[B]``, returns-to-go at each turn's first and last token, turns ``[B]``."""
    names = ["turn_rewards", "agent_mask", "turn_end"] if gamma_per == "token" else ["turn_rewards"]
    for columns, counts, episodes in (
        _dataset_columns(rows, names) if isinstance(rows, datasets.Dataset) else _row_columns(rows, names)
    ):
        rewards = columns["turn_rewards"]
        lengths = np.ones(len(rewards), np.int64)
        if gamma_per == "token":
            seen = np.cumsum(columns["agent_mask"], dtype=np.int64)
            lengths = np.diff(seen[columns["turn_end"] == 1], prepend=0)
        first, last = _returns(rewards, lengths, counts, gamma, gamma_per)
        yield episodes, first, last, counts


def _dataset_columns(
    dataset: datasets.Dataset, names: list[str]
) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]]:
    numbered = "episode" in dataset.column_names
    chosen = dataset.select_columns([*names, "episode"] if numbered else names).with_format("arrow")
    seen = 0
    for table in chosen.iter(_ROWS_A_BATCH):
        columns = {}
        counts = np.zeros(0, np.int64)
        for name in names:
            column = table.column(name).combine_chunks()
            columns[name] = column.flatten().to_numpy(zero_copy_only=False)
            if name == "turn_rewards":
                counts = np.diff(column.offsets.to_numpy()).astype(np.int64)
        if numbered:
            episodes = table.column("episode").to_numpy()
        else:
            episodes = np.arange(seen, seen + len(table))
        seen += len(table)
        yield columns, counts, episodes


def _row_columns(
    rows: Iterable[Mapping[str, Any]], names: list[str]
) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]]:
    for number, row in enumerate(rows):
        columns = {name: np.asarray(row[name]) for name in names}
        columns["turn_rewards"] = columns["turn_rewards"].astype(np.float64)
        yield columns, np.array([len(columns["turn_rewards"])]), np.array([row.get("episode", number)])
