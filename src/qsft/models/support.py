"""The support table: which tokens the behaviour model finds plausible in each state, and how plausible.

Once stage 1 is done, the behaviour model matters to stage 2 only through these few log-probabilities, so they are
computed once, exactly, and stage 2 neither holds nor runs the behaviour model.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import datasets
import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from qsft.data.batch import TrajectoryCollator
from qsft.data.images import ImageInputs
from qsft.errors import CheckpointError, ConfigError
from qsft.models.states import output_head, state_hidden

_SCHEMA = pa.schema(
    [
        ("support_counts", pa.list_(pa.int32())),
        ("support_ids", pa.list_(pa.int32())),
        ("support_logps", pa.list_(pa.float32())),
    ]
)
SUPPORT_COLUMNS = tuple(_SCHEMA.names)


@dataclass(frozen=True)
class SupportRule:
    """Which tokens of a state are plausible under the behaviour model.

    Args:
        kind: ``"relative"``: ``pi(a|s) >= threshold * max_a pi(a|s)``; ``"absolute"``: ``pi(a|s) >= threshold`` (the
            likeliest token always stays).
        threshold: in (0, 1]. Relative suits better: where the data is uniform over 400 words all of them stay, where
            it is sharp only a few do.
        max_tokens: at most this many of the likeliest tokens stay.
    """

    kind: Literal["relative", "absolute"] = "relative"
    threshold: float = 0.1
    max_tokens: int = 512

    def __post_init__(self) -> None:
        if self.kind not in ("relative", "absolute"):
            raise ConfigError(f"support kind: {self.kind!r} is unknown; use 'relative' or 'absolute'.")
        if not 0 < self.threshold <= 1:
            raise ConfigError(f"support threshold: {self.threshold} is outside (0, 1]; 0.1 is a good start.")
        if self.max_tokens < 1:
            raise ConfigError(f"support max_tokens: {self.max_tokens} must be at least 1.")

    def mask(self, logps: Tensor) -> Tensor:
        """``[..., V]`` log-probabilities to a bool mask of the support (without the cap on its size)."""
        floor = torch.log(torch.tensor(self.threshold, dtype=logps.dtype, device=logps.device))
        best = logps.amax(dim=-1, keepdim=True)
        if self.kind == "relative":
            return logps >= best + floor
        return (logps >= floor) | (logps == best)

    def select(self, logps: Tensor, forbidden: int | None = None) -> tuple[Tensor, Tensor]:
        """The support of each state, likeliest token first.

        Args:
            logps: ``[N, V]`` log-probabilities of the behaviour model.
            forbidden: a token that is never in the support (the dummy token).

        Returns:
            ids ``[N, K]`` int64, -1 where padded, and their log-probabilities ``[N, K]``, -inf where padded. K is the
            size of the largest support.
        """
        if forbidden is not None:
            logps = logps.clone()
            logps[:, forbidden] = -torch.inf
        mask = self.mask(logps)
        width = min(int(mask.sum(dim=1).max()), self.max_tokens)
        top, ids = logps.topk(width, dim=1)
        inside = mask.gather(1, ids)
        return ids.masked_fill(~inside, -1), top.masked_fill(~inside, -torch.inf)


@torch.no_grad()
def compute_support(
    model: PreTrainedModel,
    dataset: datasets.Dataset,
    rule: SupportRule,
    path: str | os.PathLike[str],
    *,
    pad_token_id: int,
    dummy_id: int,
    batch_size: int = 64,
    chunk_size: int = 512,
    progress: bool = True,
    images: ImageInputs | None = None,
) -> None:
    """Write the support table of a dataset to an Arrow file, one row a trajectory.

    Columns: ``support_counts`` (tokens in each state's support), ``support_ids`` and ``support_logps`` (of all
    states, one after the other). The file appears whole or not at all; it is never held in memory.

    Args:
        model: the behaviour model; put in evaluation mode for the pass and back.
        dataset: tokenised trajectories.
        rule: which tokens stay.
        path: the Arrow file to write.
        pad_token_id: for batching.
        dummy_id: never in the support.
        batch_size: trajectories a forward pass.
        chunk_size: states whose logits exist at a time.
        progress: show a bar.
        images: of a vision-language model, for batching.
    """
    weight, bias = output_head(model)
    loader: DataLoader[Any] = DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_size=batch_size,
        collate_fn=TrajectoryCollator(pad_token_id, images=images),
    )
    partial = f"{os.fspath(path)}.{os.getpid()}.partial"  # another process may be at the same table
    was_training = model.training
    model.eval()
    try:
        with pa.OSFile(partial, "wb") as sink, pa.ipc.new_stream(sink, _SCHEMA) as writer:
            for batch in tqdm(loader, desc="support table", unit="batch", mininterval=1.0, disable=not progress):
                hidden = state_hidden(model, {key: value.to(model.device) for key, value in batch.items()})
                selected = [
                    rule.select(_log_probabilities(hidden[start : start + chunk_size], weight, bias), dummy_id)
                    for start in range(0, len(hidden), chunk_size)
                ]
                writer.write_batch(_record_batch(selected, batch["state_mask"].sum(dim=1)))
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
    finally:
        model.train(was_training)


def with_support(dataset: datasets.Dataset, path: str | os.PathLike[str]) -> datasets.Dataset:
    """The dataset with the columns of a support table beside its own, both memory-mapped.

    Raises:
        CheckpointError: the table is damaged or belongs to other data.
    """
    try:
        table = datasets.Dataset.from_file(os.fspath(path))
    except (OSError, pa.ArrowInvalid) as error:
        raise CheckpointError(
            f"{path}: the support table cannot be read ({error}); delete it to compute it anew."
        ) from error
    if len(table) != len(dataset):
        raise CheckpointError(
            f"{path}: the support table has {len(table)} rows and the data {len(dataset)}; delete the table."
        )
    return datasets.concatenate_datasets([dataset, table], axis=1)


def _log_probabilities(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.log_softmax(torch.nn.functional.linear(hidden, weight.to(hidden.dtype), bias).float(), dim=1)


def _record_batch(selected: list[tuple[Tensor, Tensor]], states_per_row: Tensor) -> pa.RecordBatch:
    counts = torch.cat([(ids >= 0).sum(dim=1) for ids, _ in selected]).cpu().numpy()
    ids = torch.cat([ids[ids >= 0] for ids, _ in selected]).cpu().numpy()
    logps = torch.cat([logps[ids >= 0] for ids, logps in selected]).cpu().numpy()
    state_offsets = np.concatenate([[0], np.cumsum(states_per_row.numpy())])
    token_offsets = np.concatenate([[0], np.cumsum(counts)])[state_offsets]
    return pa.record_batch(
        [
            pa.ListArray.from_arrays(pa.array(state_offsets, pa.int32()), pa.array(counts, pa.int32())),
            pa.ListArray.from_arrays(pa.array(token_offsets, pa.int32()), pa.array(ids, pa.int32())),
            pa.ListArray.from_arrays(pa.array(token_offsets, pa.int32()), pa.array(logps, pa.float32())),
        ],
        schema=_SCHEMA,
    )
