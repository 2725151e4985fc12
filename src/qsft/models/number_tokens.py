"""Embeddings of numbered bins that know which bins are neighbours."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from typing import Any

import torch
from transformers import PreTrainedModel

from qsft.errors import ConfigError

_WAVES = 16


@torch.no_grad()
def number_tokens(model: PreTrainedModel, tokenizer: Any, std: float) -> None:
    """Give tokens that are numbered bins (``"s0"``, ``"s1"``, ...) embeddings that change smoothly with the number.

    Bins learnt one by one know nothing of their neighbours, and need as much more data. Here a row is a random linear
    map of waves of the number, ``cos(pi k x) / k`` with k from 1 to 16 and x in [0, 1] from the first to the last bin.
    The maps, one for each letter, others for the input embedding and the output head, come from torch's global
    generator.

    Args:
        model: a fresh model.
        tokenizer: whose bins are letters and a number, one token each.
        std: standard deviation of the rows' entries.

    Raises:
        ConfigError: no token of the tokenizer is a numbered bin.
    """
    tables: list[torch.Tensor] = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]  # type: ignore
    families: dict[str, dict[int, int]] = defaultdict(dict)
    for token, i in tokenizer.get_vocab().items():
        if found := re.fullmatch(r"([a-z]+)(\d+)", token):
            families[found[1]][int(found[2])] = i
    if not families:
        raise ConfigError("numbered_tokens: no token is letters and a number; it is for bins, such as s0, s1, ...")
    waves = torch.arange(1, _WAVES + 1)
    for _, bins in sorted(families.items()):
        numbers = torch.tensor(list(bins))
        x = numbers / max(int(numbers.max()), 1)
        for table in tables:
            rows = (torch.cos(math.pi * x[:, None] * waves) / waves) @ torch.randn(_WAVES, table.shape[1])
            table[list(bins.values())] = rows * (std / rows.std())
