"""Tokenised trajectories as columns, laid end to end: what a tokeniser gives and a file of tokens holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qsft.data.codec import Segment
from qsft.data.trajectory import Trajectory, Turn


@dataclass
class TokenColumns:
    """B tokenised trajectories, each column laid end to end.

    Attributes:
        input_ids: ``[sum of lengths]`` int32.
        agent_mask: the same shape, int8: 1 where the agent produced the token, its end-of-turn token included.
        turn_end: the same shape, int8: 1 at the last token of an agent turn.
        lengths: ``[B]`` int64, tokens of each trajectory.
        turn_rewards: ``[sum of turn_counts]`` float64, one for each agent turn that was kept.
        turn_counts: ``[B]`` int64, agent turns of each trajectory.
        terminated: ``[B]`` bool.
        returns: ``[B]`` float64, undiscounted, of whole trajectories: also of the agent turns that were not kept.
        images: paths of each trajectory's images, in order; ``None``: the tokenizer knows no images.
        contexts: tokens of each of a trajectory's stretches that are read by themselves, in order; ``None``: rows are
            read whole.
    """

    input_ids: np.ndarray
    agent_mask: np.ndarray
    turn_end: np.ndarray
    lengths: np.ndarray
    turn_rewards: np.ndarray
    turn_counts: np.ndarray
    terminated: np.ndarray
    returns: np.ndarray
    images: list[list[str]] | None = None
    contexts: list[list[int]] | None = None


@dataclass(frozen=True)
class ReadTurns:
    """Turns that a model reads at once.

    Attributes:
        turns: what is left of the history.
        pieces: their segments with ids, in order.
        learnt: which segments are the agent's and learnt from here.
    """

    turns: Sequence[Turn]
    pieces: Sequence[tuple[Segment, np.ndarray]]
    learnt: Sequence[bool]


class ColumnBuilder:
    """Puts rows together; each is what a model reads at once, or one such stretch after the other."""

    def __init__(self, images: bool, contexts: bool) -> None:
        self._with_images, self._with_contexts = images, contexts
        self._ids: list[np.ndarray] = []
        self._learnt: list[bool] = []
        self._lengths: list[int] = []
        self._rewards: list[float] = []
        self._counts: list[int] = []
        self._terminated: list[bool] = []
        self._returns: list[float] = []
        self._images: list[list[str]] = []
        self._contexts: list[list[int]] = []

    def add(self, trajectory: Trajectory, stretches: Sequence[ReadTurns]) -> None:
        """One row."""
        sizes = [sum(len(piece) for _, piece in stretch.pieces) for stretch in stretches]
        for stretch in stretches:
            self._ids += [piece for _, piece in stretch.pieces]
            self._learnt += stretch.learnt
        # several stretches have all turns of the trajectory, each in one of them
        turns = trajectory.turns if self._with_contexts else stretches[0].turns
        rewards = [turn.reward for turn in turns if turn.reward is not None]
        self._rewards += rewards
        self._counts.append(len(rewards))
        self._terminated.append(trajectory.ended == "terminated")
        self._returns.append(trajectory.total_return)
        self._images.append([str(image) for stretch in stretches for turn in stretch.turns for image in turn.images])
        self._lengths.append(sum(sizes))
        self._contexts.append(sizes)

    def columns(self) -> TokenColumns:
        """All rows added so far."""
        sizes = np.array([len(piece) for piece in self._ids], np.int64)
        learnt = np.array(self._learnt, np.int8)
        mask = np.repeat(learnt, sizes)
        turn_end = np.zeros(len(mask), np.int8)
        turn_end[np.cumsum(sizes)[learnt == 1] - 1] = 1
        return TokenColumns(
            input_ids=np.concatenate(self._ids) if self._ids else np.zeros(0, np.int32),
            agent_mask=mask,
            turn_end=turn_end,
            lengths=np.array(self._lengths, np.int64),
            turn_rewards=np.array(self._rewards, np.float64),
            turn_counts=np.array(self._counts, np.int64),
            terminated=np.array(self._terminated, bool),
            returns=np.array(self._returns, np.float64),
            images=self._images if self._with_images else None,
            contexts=self._contexts if self._with_contexts else None,
        )
