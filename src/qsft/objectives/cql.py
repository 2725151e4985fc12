"""The backup of conservative Q-learning over a vocabulary.

Source: Kumar, Zhou, Tucker, Levine, "Conservative Q-Learning for Offline Reinforcement Learning", NeurIPS 2020 (arXiv
2006.04779), with tokens for actions: the form that Snell et al. 2023 (arXiv 2206.11871) compare with.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


@torch.no_grad()
def max_min_q(hidden: Sequence[Tensor], layers: Sequence[tuple[Tensor, Tensor]], chunk_size: int = 128) -> Tensor:
    """``max_a min_heads Q(s, a)`` over the whole vocabulary, for a chunk of states at a time; no gradient.

    Args:
        hidden: of each head ``[N, H]``, its hidden layer.
        layers: of each head ``(weight [V, H], bias [V])``, its output layer.
        chunk_size: states whose V Q-values exist at a time.

    Returns:
        ``[N]`` float32 or wider.
    """
    first = hidden[0]
    best = torch.empty(len(first), dtype=torch.promote_types(first.dtype, torch.float32), device=first.device)
    for start in range(0, len(first), chunk_size):
        rows = slice(start, start + chunk_size)
        lowest = None
        for each, (weight, bias) in zip(hidden, layers, strict=True):
            q = torch.nn.functional.linear(each[rows], weight.to(each.dtype), bias.to(each.dtype))
            lowest = q if lowest is None else torch.minimum(lowest, q)
        assert lowest is not None
        best[rows] = lowest.amax(dim=-1).to(best.dtype)
    return best
