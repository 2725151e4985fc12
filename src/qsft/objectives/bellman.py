"""Values read off token probabilities, and the Bellman targets made of them.

Source: Q-SFT, section 4 (arXiv 2411.05193). The scaled Q-value of a token is ``p(a|s) / pi(a|s)``, the ratio of the
likelihood model to the behaviour model; rewards of any range are mapped onto [0, 1] by a return range.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Backup = Literal["max", "soft"]


def q_ratios(logps: Tensor, support_logps: Tensor, temperature: float | None = None) -> Tensor:
    """Scaled Q-values of the support's tokens, what the ratios ``p / pi`` stand for, clipped to [0, 1].

    Args:
        logps: ``[..., K]`` log-probabilities of the likelihood model.
        support_logps: ``[..., K]`` log-probabilities of the behaviour model, -inf where padded.
        temperature: of exponential weights; ``None``: the ratio is the value.

    Returns:
        ``[..., K]``; 0 where padded.
    """
    ratios = scaled_value((logps - support_logps).clamp_max(0.0), temperature).clamp_min(0.0)
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
    return (scores / beta).masked_fill((support_logps == -torch.inf).all(dim=-1), 0.0)


def exponential_weights(scaled: Tensor, temperature: float) -> Tensor:
    """``exp((v - 1) / temperature)``: scaled returns or values as weights of which p / pi is an exponential utility.

    The ratio then holds ``E[exp((v - 1) / temperature)]``, and ``pi exp(Q / temperature)``, the KL-regularised
    improvement on the behaviour, is ``p`` itself. Source: Peters and Schaal, "Reinforcement learning by reward-weighted
    regression", ICML 2007; Todorov, "Efficient computation of optimal actions", PNAS 2009 (the weight is his
    desirability, for which Bellman's equation is linear).

    Args:
        scaled: ``[...]`` in [0, 1].
        temperature: in units of the scaled return.
    """
    return ((scaled - 1) / temperature).exp()


def scaled_value(log_weight: Tensor, temperature: float | None) -> Tensor:
    """The scaled value that the log of a weight, or of a ratio ``p / pi``, stands for: its exponential, or with a
    temperature what :func:`exponential_weights` makes of it, undone.

    Args:
        log_weight: ``[...]``.
        temperature: of :func:`exponential_weights`; ``None``: weights are scaled values as they are.
    """
    return log_weight.exp() if temperature is None else 1 + temperature * log_weight


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


def clipped_targets(weights: Tensor, valid: Tensor) -> Targets:
    """Scaled targets ``[B, S]`` put into [0, 1], and which of them were outside."""
    clipped = valid & ((weights < -1e-6) | (weights > 1 + 1e-6))
    return Targets(weights.clamp(0.0, 1.0).masked_fill(~valid, 0.0), valid, clipped)


def has_target(has_action: Tensor, terminal: Tensor, state_mask: Tensor) -> Tensor:
    """Where a one-step target is defined: a logged action that ends its trajectory for good or has a state behind it.

    Args:
        has_action, terminal, state_mask: ``[B, S]`` bool, as for :func:`bellman_targets`.

    Returns:
        ``[B, S]`` bool.
    """
    follows = torch.zeros_like(state_mask)
    follows[:, :-1] = state_mask[:, 1:]
    return has_action & (terminal | follows)


def bellman_targets(
    values: Tensor,
    rewards: Tensor,
    has_action: Tensor,
    turn_end: Tensor,
    terminal: Tensor,
    state_mask: Tensor,
    return_range: tuple[float | Tensor, float],
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
        return_range: ``(low, high)``, bounds on every return-to-go; ``low`` may be ``[B, S]``, one for each state
            (:func:`stake`).
        gamma: discount.
        gamma_per: ``"turn"`` or ``"token"``: what one application of ``gamma`` stands for.
        trace: lambda in [0, 1].

    Returns:
        :class:`Targets`, ``[B, S]`` each; valid where :func:`has_target`.
    """
    low, span = _low_and_span(return_range, values)
    valid = has_target(has_action, terminal, state_mask)
    discount = torch.where(turn_end, gamma, 1.0) if gamma_per == "turn" else torch.full_like(values, gamma)
    discount = discount.masked_fill(terminal, 0.0)

    if trace == 0.0:
        following = torch.zeros_like(values)
        following[:, :-1] = (low + values * span)[:, 1:]
        return clipped_targets((rewards + discount * following - low) / span, valid)
    weights = torch.zeros_like(values)
    following = torch.zeros_like(values[:, 0])
    for t in range(values.shape[1] - 1, -1, -1):
        weights[:, t] = (rewards[:, t] + discount[:, t] * following - low[:, t]) / span[:, t]
        target = weights[:, t].clamp(0.0, 1.0)
        # a state without a target of its own passes on its value
        mixed = values[:, t] + trace * torch.where(valid[:, t], target - values[:, t], 0.0)
        following = low[:, t] + mixed * span[:, t]
    return clipped_targets(weights, valid)


def stake(low: float, turns: Tensor, horizon: int) -> Tensor:
    """``low (1 - t / horizon)``: the worst return still possible at agent turn t, where every turn costs alike.

    With it as the lower bound of its state, a value is the share of what is still at stake, instead of a share of what
    the whole episode had at stake: the ratio of a good to a bad action's value is as large at the last turn as at the
    first. A bound that depends on the turn alone scales all actions of a state alike, so none changes its rank.

    Args:
        low: lower bound on the return of a whole episode.
        turns: agent turns, from 0.
        horizon: turns that an episode can last; from there on the bound is 0.
    """
    return low * (1 - turns / horizon).clamp_min(0.0)


def _low_and_span(return_range: tuple[float | Tensor, float], like: Tensor) -> tuple[Tensor, Tensor]:
    low = torch.as_tensor(return_range[0], dtype=like.dtype, device=like.device).expand_as(like)
    # past the horizon nothing is at stake, and no action is taken
    return low, (return_range[1] - low).clamp_min(1e-9)


def monte_carlo_targets(
    returns_to_go: Tensor, has_action: Tensor, return_range: tuple[float | Tensor, float]
) -> Targets:
    """The scaled return-to-go as the weight: ``p / pi`` becomes the Q-value of the behaviour (one-step improvement).

    Args:
        returns_to_go: ``[B, S]`` in reward units.
        has_action: ``[B, S]`` bool.
        return_range: ``(low, high)``, as for :func:`bellman_targets`.
    """
    low, span = _low_and_span(return_range, returns_to_go)
    return clipped_targets((returns_to_go - low) / span, has_action)
