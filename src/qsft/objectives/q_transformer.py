"""Q-learning with a token for each dimension of an action.

Source: Chebotar et al., "Q-Transformer: Scalable Offline Reinforcement Learning via Autoregressive Q-Functions", CoRL
2023 (arXiv 2309.10150), section 4. Each dimension is a step of its own: Q of a dimension's bin is the best Q of the
next dimension, and the reward and the discount come with the last one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qsft.objectives.bellman import has_target


def q_transformer_targets(
    values: Tensor,
    rewards: Tensor,
    has_action: Tensor,
    turn_end: Tensor,
    terminal: Tensor,
    state_mask: Tensor,
    gamma: float,
    steps: int = 1,
    returns_to_go: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Targets of Q at every logged token (section 4.1), n steps ahead and bounded from below (section 4.3).

    With one step: inside an action ``max_a' Q(s, a_1..a_i, a')``; at its last dimension ``r + gamma max_a' Q(s', a')``;
    the reward alone where the trajectory terminates. With n steps, the rewards of n dimensions of the logged
    trajectory, and the value after them; fewer where the trajectory ends before that.

    Args:
        values: ``[B, S]``, of the target network: the maximum of Q over the bins of the dimension that is next.
        rewards: ``[B, S]``, a turn's reward at its last token, else 0.
        has_action: ``[B, S]`` bool, False for the state after a truncated trajectory's last action, and for padding.
        turn_end: ``[B, S]`` bool, last token of an action.
        terminal: ``[B, S]`` bool.
        state_mask: ``[B, S]`` bool, False for padding.
        gamma: discount of a whole action.
        steps: n, at least 1, in tokens. The number of dimensions looks one whole action ahead.
        returns_to_go: ``[B, S]``, the logged returns: no target is below them (the optimal value is not). ``None``:
            no such bound.

    Returns:
        ``[B, S]`` targets, 0 where invalid, and ``[B, S]`` bool, where they are valid.
    """
    valid = has_target(has_action, terminal, state_mask)
    discount = torch.ones_like(values).masked_fill(turn_end, gamma).masked_fill(terminal, 0.0)
    targets = values
    for _ in range(steps):
        following = torch.zeros_like(values)
        following[:, :-1] = targets[:, 1:]
        targets = torch.where(valid, rewards + discount * following, values)
    if returns_to_go is not None:
        targets = torch.maximum(targets, returns_to_go)
    return targets.masked_fill(~valid, 0.0), valid


def q_transformer_loss(
    q: Tensor,
    actions: Tensor,
    targets: Tensor,
    valid: Tensor,
    low: float,
    conservatism: float = 1.0,
    bins: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """``1/2 (Q(s, a) - target)^2``, and ``1/2 (Q(s, a') - low)^2`` for every bin a' that was not taken (equation 3).

    Means over the valid tokens; the second term is first averaged over a token's other bins.

    Args:
        q: ``[..., A]`` Q-values of all bins.
        actions: ``[...]`` int64, the logged bins.
        targets: ``[...]``, without gradient.
        valid: ``[...]`` bool; without any the loss is 0.
        low: lowest possible return; 0 in the paper.
        conservatism: weight of the second term; 1 in the paper.
        bins: ``[...]`` int64, how many of the A bins the token's dimension has; ``None``: all.

    Returns:
        The loss, and its parts ``td`` and ``conservative``, without gradient.
    """
    count = valid.sum().clamp_min(1)
    taken = q.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
    td = 0.5 * ((taken - targets) ** 2).masked_fill(~valid, 0.0).sum() / count
    numbers = torch.arange(q.shape[-1], device=q.device)
    other = numbers != actions.unsqueeze(-1)
    if bins is not None:
        other &= numbers < bins.unsqueeze(-1)
    squares = ((q - low) ** 2).masked_fill(~other, 0.0).sum(-1) / other.sum(-1).clamp_min(1)
    conservative = 0.5 * squares.masked_fill(~valid, 0.0).sum() / count
    return td + conservatism * conservative, {"td": td.detach(), "conservative": conservative.detach()}
