"""Cross-entropy against a :class:`~qsft.objectives.forms.TargetDistribution`, without holding the logits.

With hidden states ``h`` [N, H] and head ``W`` [V, H], logits of all N states cost N x V floats, several times over in
autograd. Here they exist for a chunk of states at a time: the gradient with respect to the logits,
``C softmax(z) - coefficients - rest``, is known in closed form, so both matrix products of the backward pass are done
while the chunk's logits are still there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qsft.objectives.forms import TargetDistribution, balance


def cross_entropy(logits: Tensor, target: TargetDistribution) -> Tensor:
    """Loss of each state from its full logits: the naive reference.

    Args:
        logits: ``[N, V]``.
        target: what the states are fitted to.

    Returns:
        ``[N]``, float32 or wider.
    """
    logps = torch.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)
    picked = logps.gather(1, target.ids)
    if target.max_weight is not None:
        return balance(target.coefficients, picked, target.max_weight)[1]
    loss = -(target.coefficients * picked).sum(dim=1)
    if target.rest is not None:
        loss = loss - target.rest * logps.sum(dim=1)
    return loss


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: TargetDistribution,
    chunk_size: int = 128,
) -> tuple[Tensor, Tensor]:
    """Sum over states of :func:`cross_entropy` of ``hidden @ weight.T + bias``, chunk by chunk.

    Args:
        hidden: ``[N, H]`` hidden states at agent positions.
        weight: ``[V, H]`` output embedding.
        bias: ``[V]`` or ``None``.
        target: what the states are fitted to.
        chunk_size: states whose logits exist at a time.

    Returns:
        The loss (a scalar, float32 or wider, differentiable in ``hidden``, ``weight`` and ``bias``) and the detached
        log-probabilities ``[N]`` of ``target.ids[:, 0]``, the logged tokens.
    """
    loss, logps = _LinearCrossEntropy.apply(
        hidden, weight, bias, target.ids, target.coefficients, target.rest, target.max_weight, chunk_size
    )
    return loss, logps


@torch.no_grad()
def linear_log_probabilities(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, ids: Tensor, chunk_size: int = 128
) -> Tensor:
    """Log-probabilities of a few tokens of each state, streamed over chunks of states; no gradient.

    Always in float32, autocast or not.

    Args:
        hidden: ``[N, H]``.
        weight: ``[V, H]``.
        bias: ``[V]`` or ``None``.
        ids: ``[N, K]`` int64; negative entries give ``-inf``.
        chunk_size: states whose logits exist at a time.

    Returns:
        ``[N, K]`` float32.
    """
    out = torch.empty(ids.shape, dtype=torch.float32, device=hidden.device)
    weight = weight.float()
    # In half precision a logit far from 0 is rounded by more than values differ, and ratios of two models show it.
    with torch.autocast(hidden.device.type, enabled=False):
        for part in range(0, len(hidden), chunk_size):
            rows = slice(part, part + chunk_size)
            logits = _logits(hidden[rows].float(), weight, bias)
            out[rows] = logits.gather(1, ids[rows].clamp_min(0)) - logits.logsumexp(dim=1, keepdim=True)
    return out.masked_fill_(ids < 0, -torch.inf)


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    logits = hidden @ weight.to(hidden.dtype).T
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    return logits if bias is None else logits.add_(bias)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        ids: Tensor,
        coefficients: Tensor,
        rest: Tensor | None,
        max_weight: float | None,
        chunk_size: int,
    ) -> tuple[Tensor, Tensor]:
        vocabulary = weight.shape[0]
        exact = torch.promote_types(hidden.dtype, torch.float32)
        coefficients = coefficients.to(exact)
        rest = None if rest is None else rest.to(exact)
        wants = [tensor is not None and tensor.requires_grad for tensor in (hidden, weight, bias)]
        grad_hidden = torch.empty_like(hidden) if wants[0] else None
        grad_weight = torch.zeros_like(weight, dtype=exact) if wants[1] else None
        grad_bias = torch.zeros(vocabulary, dtype=exact, device=weight.device) if wants[2] else None
        total = torch.zeros((), dtype=exact, device=hidden.device)
        logps = torch.empty(len(hidden), dtype=exact, device=hidden.device)
        for part in range(0, len(hidden), chunk_size):
            rows = slice(part, part + chunk_size)
            logits = _logits(hidden[rows], weight, bias)
            normaliser = logits.logsumexp(dim=1)
            picked = logits.gather(1, ids[rows])
            logps[rows] = picked[:, 0] - normaliser
            fitted = coefficients[rows]
            if max_weight is not None:
                fitted, loss = balance(fitted, picked - normaliser[:, None], max_weight)
                mass = fitted.sum(dim=1)
            else:
                mass = fitted.sum(dim=1) if rest is None else fitted.sum(dim=1) + rest[rows] * vocabulary
                loss = mass * normaliser - (fitted * picked).sum(dim=1)
                if rest is not None:
                    loss -= rest[rows] * logits.sum(dim=1)
            total += loss.sum()
            if not any(wants):
                continue
            # d loss / d logits, formed in the logits' own memory
            grad = logits.sub_(normaliser[:, None]).exp_().mul_(mass[:, None])
            if rest is not None:
                grad -= rest[rows, None]
            grad.scatter_add_(1, ids[rows], -fitted)
            if grad_bias is not None:
                grad_bias += grad.sum(dim=0)
            grad = grad.to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[rows] = grad @ weight.to(hidden.dtype)
            if grad_weight is not None:
                if grad.dtype == grad_weight.dtype:
                    grad_weight.addmm_(grad.T, hidden[rows])
                else:
                    grad_weight += grad.T @ hidden[rows]
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        ctx.weight_dtype = weight.dtype
        ctx.mark_non_differentiable(logps)
        return total, logps

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        grad_hidden, grad_weight, grad_bias = ctx.saved_tensors
        return (
            None if grad_hidden is None else grad_hidden * grad_total.to(grad_hidden.dtype),
            None if grad_weight is None else (grad_weight * grad_total).to(ctx.weight_dtype),
            None if grad_bias is None else grad_bias * grad_total,
            None,
            None,
            None,
            None,
            None,
        )
