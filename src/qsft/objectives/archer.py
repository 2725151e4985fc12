"""Which tokens a turn is made of, for a critic of whole turns above an actor of tokens.

Source: Zhou, Zanette, Pan, Levine, Kumar, "ArCHer", ICML 2024 (arXiv 2402.19446), section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor


def turn_bounds(turn_end: Tensor) -> tuple[Tensor, Tensor]:
    """Of each state, the first and the last state of the turn that its action belongs to.

    Args:
        turn_end: ``[B, S]`` bool, the action ends the agent's turn.

    Returns:
        Two ``[B, S]`` int64, indices into S. After a row's last turn (a bootstrap state, padding): the state after
        that turn, and S - 1.
    """
    places = torch.arange(turn_end.shape[1], device=turn_end.device).expand(turn_end.shape)
    starts = torch.zeros_like(turn_end)
    starts[:, 0] = True
    starts[:, 1:] = turn_end[:, :-1]
    first = torch.where(starts, places, 0).cummax(dim=1).values
    ends = torch.where(turn_end, places, turn_end.shape[1] - 1)
    last = ends.flip(1).cummin(dim=1).values.flip(1)
    return first, last


def turn_advantages(q: Tensor, values: Tensor, turn_end: Tensor) -> Tensor:
    """``Q(s, u) - V(s)`` of a turn u, at each of its tokens.

    Args:
        q: ``[B, S]``, the turn's Q-value at its last state; elsewhere not read.
        values: ``[B, S]``, ``V`` at the turn's first state; elsewhere not read.
        turn_end: ``[B, S]`` bool.

    Returns:
        ``[B, S]``; meaningless at states without an action.
    """
    first, last = turn_bounds(turn_end)
    return q.gather(1, last) - values.gather(1, first)
