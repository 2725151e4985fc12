"""Rows for tokens that a model has never seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel


@torch.no_grad()
def start_token_rows(model: PreTrainedModel, ids: Sequence[int]) -> None:
    """Let each of the tokens start as the mean of all tokens before them, in the embeddings and in the output head.

    The embeddings grow where they are too short. From the mean, a new token disturbs a pretrained model least.

    Args:
        model: changed in place.
        ids: the new tokens, the last ones of the vocabulary.
    """
    embeddings: Any = model.get_input_embeddings()
    if max(ids) >= embeddings.weight.shape[0]:
        model.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
    parts: list[Any] = [model.get_input_embeddings(), model.get_output_embeddings()]
    for part in parts:
        for parameter in (part.weight, getattr(part, "bias", None)):
            if parameter is not None:
                parameter[list(ids)] = parameter[: min(ids)].float().mean(dim=0).to(parameter.dtype)
