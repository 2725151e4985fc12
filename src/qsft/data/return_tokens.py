"""Return tokens: what follows from here on, said to the model before each turn of the agent.

Source: Chen et al., "Decision Transformer" (arXiv 2106.01345), section 3; Brandfonbrener et al., "When does
return-conditioned supervised learning work for offline reinforcement learning?" (arXiv 2206.01079).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qsft.data.codec import Segment
from qsft.data.images import tokenizer_of
from qsft.data.trajectory import Trajectory, Turn
from qsft.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def return_levels(trajectories: Iterable[Trajectory], most: int) -> tuple[list[float], float]:
    """The returns that are told apart, in ascending order, and the best return of a whole episode.

    Where the agent's turns have at most ``most`` different returns-to-go (undiscounted, to six digits), these. Else
    those of ``most`` evenly spaced values from the lowest to the highest to which some return-to-go is nearest. So
    every level occurs in the data, the lowest and the highest return among them.

    Raises:
        ConfigError: ``most`` is below 2, or all returns are the same.
    """
    if most < 2:
        raise ConfigError(f"return_tokens: {most}; give at least 2")
    seen: set[float] = set()
    best = -math.inf
    for trajectory in trajectories:
        to_go = _suffix_sums(trajectory.rewards)
        seen.update(float(f"{value:.6g}") for value in to_go)
        best = max([best, *to_go[:1]])
    if len(seen) < 2:
        raise ConfigError(
            "return_tokens: every return-to-go in the data is the same, so there is nothing to ask for; add episodes "
            "with other rewards, or use the method sft"
        )
    values = np.array(sorted(seen))
    if len(values) > most:
        grid = np.linspace(values[0], values[-1], most)
        values = grid[np.unique(_nearest(grid, values))]
    return [float(f"{value:.6g}") for value in values], float(f"{best:.6g}")


def add_return_tokens(tokenizer: PreTrainedTokenizerBase, levels: Sequence[float]) -> Any:
    """A copy of the tokenizer, or processor, with one special token a level."""
    extended = copy.deepcopy(tokenizer)
    tokenizer_of(extended).add_tokens([_text(level) for level in levels], special_tokens=True)
    return extended


class ReturnTokens:
    """The token of each return level, and where they stand.

    Args:
        tokenizer: has the tokens, see :func:`add_return_tokens`.
        levels: returns in ascending order, see :func:`return_levels`.

    Attributes:
        levels: ``[L]`` float64, in reward units.
        ids: ``[L]`` int32, their tokens.

    Raises:
        ConfigError: a level without a token, or levels that do not ascend.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, levels: Sequence[float]) -> None:
        self.levels = np.asarray(levels, np.float64)
        if len(self.levels) < 2 or (np.diff(self.levels) <= 0).any():
            raise ConfigError(f"return levels {list(levels)}: give at least two, in ascending order")
        vocabulary = tokenizer.get_vocab()
        missing = [_text(level) for level in levels if _text(level) not in vocabulary]
        if missing:
            raise ConfigError(
                f"the tokenizer has no return token {missing[0]!r}; use the one that was saved with the run"
            )
        self.ids = np.array([vocabulary[_text(level)] for level in levels], np.int32)
        self._pieces = [
            (Segment("environment", _text(level)), self.ids[i : i + 1]) for i, level in enumerate(self.levels)
        ]

    def logged(self, turns: Sequence[Turn]) -> list[float]:
        """Undiscounted return-to-go of each agent turn of a finished episode."""
        return _suffix_sums([turn.reward or 0.0 for turn in turns if turn.is_agent])

    def wanted(self, turns: Sequence[Turn], target: float | None) -> list[float]:
        """The same in an unfinished episode that is to return ``target`` in all, the next turn's at the end.

        What is still wanted is the target less the rewards received so far, but no more and no less than the data has
        seen. The turns so far stand there as if the episode went on to return just that: so the history looks like
        those of training, even where the target is out of reach. A reward that is not known counts as 0.

        Args:
            target: in reward units; ``None``: the highest level at every turn.

        Raises:
            ConfigError: a target outside of the levels.
        """
        rewards = [turn.reward or 0.0 for turn in turns if turn.is_agent]
        low, high = float(self.levels[0]), float(self.levels[-1])
        if target is None:
            rest = high
        else:
            self.check(target)
            rest = min(max(target - sum(rewards), low), high)
        return [*(rest + value for value in _suffix_sums(rewards)), rest]

    def check(self, target: float) -> None:
        """Raises ConfigError where a wanted return is outside of what the data has seen."""
        slack = 1e-6 * (self.levels[-1] - self.levels[0])  # levels are rounded
        if not self.levels[0] - slack <= target <= self.levels[-1] + slack:
            raise ConfigError(
                f"target_return: {target:g} is outside of the returns-to-go in the data, {self.levels[0]:g} to "
                f"{self.levels[-1]:g}; ask for one of these"
            )

    def insert(
        self, pieces: list[tuple[Segment, np.ndarray]], to_go: Sequence[float], open_end: bool
    ) -> list[tuple[Segment, np.ndarray]]:
        """The pieces of a row with the token of its return-to-go before each turn of the agent.

        Args:
            pieces: segments and their ids; the newest turns, where older ones were cut off.
            to_go: of all agent turns; with ``open_end`` one more, of the turn that is to come.
        """
        tokens = [self._pieces[i] for i in _nearest(self.levels, np.asarray(to_go))]
        row = [tokens.pop()] if open_end else []
        for piece in reversed(pieces):
            row.append(piece)
            if piece[0].kind == "agent":
                row.append(tokens.pop())
        return row[::-1]


def _nearest(levels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Index of the level nearest to each value (the higher one of two)."""
    return np.searchsorted((levels[1:] + levels[:-1]) / 2, values, side="right")


def _suffix_sums(rewards: Sequence[float]) -> list[float]:
    return np.cumsum(np.asarray(rewards, np.float64)[::-1])[::-1].tolist()


def _text(level: float) -> str:
    return f"<|return {level:g}|>"
