"""Losses of the methods with value heads: implicit Q-learning, and regression to a return or to a Bellman target.

Source: Snell, Kostrikov, Su, Yang, Levine, "Offline RL for Natural Language Generation with Implicit Language Q
Learning", ICLR 2023 (arXiv 2206.11871), equations 4 to 7; the expectile is Kostrikov, Nair, Levine, "Offline
Reinforcement Learning with Implicit Q-Learning", ICLR 2022 (arXiv 2110.06169), equation 5. The remaining term, the
conservative cross-entropy of the Q logits at the logged token, is
:func:`~qsft.objectives.chunked.linear_cross_entropy` with a supervised target.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def q_regression(q: Sequence[Tensor], targets: Tensor, valid: Tensor) -> Tensor:
    """``sum_heads sum_t (Q(s_t, a_t) - target_t)^2`` over the valid states.

    Args:
        q: of each head ``[...]``, the Q-values of the logged actions.
        targets: ``[...]``, without a gradient.
        valid: bool ``[...]``; a state without a target adds nothing.
    """
    errors = torch.stack([(head - targets).square() for head in q])
    return torch.where(valid, errors, 0.0).sum()


def expectile_regression(values: Tensor, q: Tensor, tau: float) -> Tensor:
    """``sum_t |tau - 1[Q < V]| (Q - V)^2``: V becomes the tau-expectile of Q over the actions of the data.

    0.5 is their mean; towards 1 it tends to the best action *of the data*, without ever naming one.

    Args:
        values: ``[...]``, ``V(s_t)``.
        q: ``[...]``, target Q-values of the logged actions, without a gradient.
        tau: in (0, 1).
    """
    above = q - values
    return (torch.where(above >= 0, tau, 1.0 - tau) * above.square()).sum()


def token_q(hidden: Tensor, weight: Tensor, bias: Tensor, actions: Tensor) -> Tensor:
    """Q-value of one token a state, without those of the other V - 1.

    Args:
        hidden: ``[N, H]`` hidden layer of a Q head.
        weight, bias: ``[V, H]`` and ``[V]``, its output layer.
        actions: ``[N]`` int64.

    Returns:
        ``[N]`` float32 or wider.
    """
    exact = torch.promote_types(hidden.dtype, torch.float32)
    rows = torch.nn.functional.embedding(actions, weight)
    return (hidden * rows.to(hidden.dtype)).sum(dim=-1, dtype=exact) + bias[actions].to(exact)
