"""A likelihood model that begins with the data's mean value in every state, instead of with the highest there is."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from qsft.models.states import has_action, output_head, state_hidden

_STATES = 4096
_CHUNK = 256


@torch.no_grad()
def start_at_mean(model: PreTrainedModel, batches: Iterable[dict[str, Tensor]], dummy_id: int, value: float) -> float:
    """Fit the dummy token's row of the output head such that the mean of ``1 - p(d|s)`` is ``value``.

    A copy of the behaviour model gives the dummy token nothing, so every scaled value is 1 at the start and has to fall
    from there first. Where returns are low that is most of what a short stage 2 learns. All other tokens keep their odds:
    every ratio ``p / pi`` of a state starts at the same value. By ridge regression of the logit that this needs on the last
    hidden states: from state to state it holds as far as these can tell, in the mean exactly.

    Args:
        model: changed in place; its head has a row for the dummy token.
        batches: of data (:class:`~qsft.data.batch.TokenBatch`), on the model's device; 4,096 states are plenty.
        dummy_id: the dummy token.
        value: in (0, 1), scaled.

    Returns:
        The mean of ``1 - p(d|s)`` over these states afterwards: ``value``, up to rounding.
    """
    weight, bias = output_head(model)
    was_training = model.training
    model.eval()
    found: list[Tensor] = []
    for batch in batches:
        found.append(state_hidden(model, batch)[has_action(batch)[batch["state_mask"]]])
        if sum(map(len, found)) >= _STATES:
            break
    model.train(was_training)
    hidden = torch.cat(found)[:_STATES].float()
    others = torch.cat([_others(part, weight, bias, dummy_id) for part in hidden.split(_CHUNK)]).double()
    states = hidden.double()
    gram = states.T @ states
    gram.diagonal().add_(1e-3 * gram.diagonal().mean())
    offset = 0.0 if bias is None else float(bias[dummy_id])
    # logits of the dummy token that are as large as all others together, and those that are 1, as far as states can tell
    even, one = torch.linalg.solve(gram, states.T @ torch.stack([others - offset, torch.ones_like(others)], dim=1)).T
    low, high = -50.0, 50.0
    for _ in range(60):  # the mean of 1 - p(d|s) falls with the odds
        odds = (low + high) / 2
        mean = torch.sigmoid(others - offset - states @ (even + odds * one)).mean()
        low, high = (odds, high) if mean > value else (low, odds)
    weight[dummy_id] = (even + odds * one).to(weight.dtype)
    return float(mean)


def _others(hidden: Tensor, weight: Tensor, bias: Tensor | None, dummy_id: int) -> Tensor:
    """Log of the summed weights of all tokens but one, ``[N]``."""
    logits = hidden @ weight.float().T
    if bias is not None:
        logits += bias
    logits[:, dummy_id] = -torch.inf
    return logits.logsumexp(dim=1)
