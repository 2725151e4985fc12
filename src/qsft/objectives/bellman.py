"""Values read off token probabilities, and the Bellman targets made of them.

Source: Q-SFT, section 4 (arXiv 2411.05193). The scaled Q-value of a token is ``p(a|s) / pi(a|s)``, the ratio of the
likelihood model to the behaviour model; rewards of any range are mapped onto [0, 1] by a return range.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Backup = Literal["max", "soft"]


def q_ratios(logps: Tensor, support_logps: Tensor) -> Tensor:
    """Scaled Q-values ``p / pi`` of the support's tokens, clipped to [0, 1].

    Args:
        logps: ``[..., K]`` log-probabilities of the likelihood model.
        support_logps: ``[..., K]`` log-probabilities of the behaviour model, -inf where padded.

    Returns:
        ``[..., K]``; 0 where padded.
    """
    ratios = (logps - support_logps).clamp_max(0.0).exp()
    return ratios.masked_fill(support_logps == -torch.inf, 0.0)


def max_value(q: Tensor, support_logps: Tensor) -> Tensor:
    """``max_a Q(s, a)`` over the support: the paper's backup.

    Args:
        q: ``[..., K]`` scaled Q-values.
        support_logps: ``[..., K]``, -inf where padded.

    Returns:
        ``[...]``; 0 where a state's support is empty (padding).
    """
    return q.masked_fill(support_logps == -torch.inf, 0.0).amax(dim=-1)


def soft_value(q: Tensor, support_logps: Tensor, beta: float) -> Tensor:
    """``(1 / beta) log sum_a pi(a|s) exp(beta Q(s, a))`` over the support, ``pi`` renormalised on it.

    The value of the KL-regularised optimal policy ``pi exp(beta Q)``, the one that the value extraction plays; tends to
    the maximum for a large ``beta`` and to the behaviour's value for a small one.

    Args:
        q: ``[..., K]`` scaled Q-values.
        support_logps: ``[..., K]``, -inf where padded.
        beta: inverse temperature, in units of the scaled return.

    Returns:
        ``[...]``; 0 where a state's support is empty (padding).
    """
    scores = torch.logsumexp(support_logps + beta * q, dim=-1) - torch.logsumexp(support_logps, dim=-1)
    return torch.nan_to_num(scores / beta, nan=0.0)


class Targets(NamedTuple):
    """Weights of the loss. All ``[B, S]``.

    Attributes:
        weights: float32 in [0, 1], 0 where ``valid`` is False.
        valid: bool, the state has a logged action and a defined target.
        clipped: bool, the unclipped weight was outside [0, 1] by more than rounding.
    """

    weights: Tensor
    valid: Tensor
    clipped: Tensor


def _clip(weights: Tensor, valid: Tensor) -> Targets:
    clipped = valid & ((weights < -1e-6) | (weights > 1 + 1e-6))
    return Targets(weights.clamp(0.0, 1.0).masked_fill(~valid, 0.0), valid, clipped)


def bellman_targets(
    values: Tensor,
    rewards: Tensor,
    has_action: Tensor,
    turn_end: Tensor,
    terminal: Tensor,
    state_mask: Tensor,
    return_range: tuple[float, float],
    gamma: float = 1.0,
    gamma_per: str = "turn",
    trace: float = 0.0,
) -> Targets:
    """One-step targets ``w_t = (r_t + gamma v(s_{t+1}) - low) / (high - low)``, clipped to [0, 1], or their traces.

    ``v = low + V (high - low)`` is the value in reward units. Inside a turn there is neither reward nor discount
    (``w_t = V(s_{t+1})``); the last token of a terminated trajectory has no next value (``w_t = (r_t - low) / (high -
    low)``); the last token of a truncated trajectory is bootstrapped from the state after its last observation where
    the data has one, and has no target otherwise.

    With a trace ``lambda``, ``V(s_{t+1})`` becomes ``(1 - lambda) V(s_{t+1}) + lambda w_{t+1}`` (Peng's Q(lambda)): 0 is
    the one-step target, 1 the Monte-Carlo return. A reward reaches the first token of an episode of n tokens in n
    updates of the target network without a trace, and at once with one.

    Args:
        values: ``[B, S]`` scaled values ``V(s)`` of the target network.
        rewards: ``[B, S]`` in reward units, the turn's reward at its last token, else 0.
        has_action: ``[B, S]`` bool, False for bootstrap states and padding.
        turn_end: ``[B, S]`` bool.
        terminal: ``[B, S]`` bool.
        state_mask: ``[B, S]`` bool, False for padding.
        return_range: ``(low, high)``, bounds on every return-to-go.
        gamma: discount.
        gamma_per: ``"turn"`` or ``"token"``: what one application of ``gamma`` stands for.
        trace: lambda in [0, 1].
    """
    low, high = return_range
    has_next = torch.zeros_like(state_mask)
    has_next[:, :-1] = state_mask[:, 1:]
    valid = has_action & (terminal | has_next)
    discount = torch.where(turn_end, gamma, 1.0) if gamma_per == "turn" else torch.full_like(values, gamma)
    discount = discount.masked_fill(terminal, 0.0)

    def weight(following: Tensor, at: int | slice) -> Tensor:
        return (rewards[:, at] + discount[:, at] * (low + following * (high - low)) - low) / (high - low)

    if trace == 0.0:
        following = torch.zeros_like(values)
        following[:, :-1] = values[:, 1:]
        return _clip(weight(following, slice(None)), valid)
    weights = torch.zeros_like(values)
    following = torch.zeros_like(values[:, 0])
    for t in range(values.shape[1] - 1, -1, -1):
        weights[:, t] = weight(following, t)
        target = weights[:, t].clamp(0.0, 1.0)
        # a state without a target of its own passes on its value
        following = values[:, t] + trace * torch.where(valid[:, t], target - values[:, t], 0.0)
    return _clip(weights, valid)


def monte_carlo_targets(returns_to_go: Tensor, has_action: Tensor, return_range: tuple[float, float]) -> Targets:
    """The scaled return-to-go as the weight: ``p / pi`` becomes the Q-value of the behaviour (one-step improvement).

    Args:
        returns_to_go: ``[B, S]`` in reward units.
        has_action: ``[B, S]`` bool.
        return_range: ``(low, high)``.
    """
    low, high = return_range
    return _clip((returns_to_go - low) / (high - low), has_action)
