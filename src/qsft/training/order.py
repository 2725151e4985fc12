"""The order of rows grouped by length, which a run that goes on must draw as it was drawn."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler


class EpochOrder(LengthGroupedSampler):
    """Transformers' groups of rows of like length, drawn from the seed and the epoch alone.

    Transformers' own draws from the generator of all else: a run that goes on in its second epoch or later would draw
    another order than the one it had begun, see some rows twice and others never.

    Args:
        sampler: whose rows and group size these are.
        seed: of the order; each epoch has another.
    """

    def __init__(self, sampler: LengthGroupedSampler, seed: int) -> None:
        super().__init__(sampler.batch_size, lengths=sampler.lengths)
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator = torch.Generator().manual_seed(self.seed + self.epoch)
        return super().__iter__()
