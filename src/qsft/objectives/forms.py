"""The forms of the Q-SFT loss, each as the distribution over tokens that a state's logits are fitted to.

Every form is a cross-entropy against a (signed) target distribution with a few non-zero entries, so one kernel serves
all of them, plain supervised fine-tuning included (weight 1 on the logged token):

    loss = - sum_k coefficients[k] log p(ids[k]) - rest * sum_j log p(j)

Notation: ``w`` the target weight in [0, 1] of the logged token ``a`` (its scaled Q-value), ``pi`` the behaviour model,
``d`` the dummy token (never an action). Source: Hong, Dragan, Levine, "Q-SFT", ICLR 2025, section 4 (arXiv
2411.05193) for the uniform form; the dummy form puts the left-over mass on one token instead, which makes
``p / pi = Q`` exact; the anchored form is the dummy form with a control variate, the balanced form the dummy form with
states of every value counting alike for the policy.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class TargetDistribution(NamedTuple):
    """What each of N states is fitted to.

    Attributes:
        ids: ``[N, K]`` int64 tokens; the first column is the logged token. Entries with coefficient 0 are ignored.
        coefficients: ``[N, K]`` float32; may be negative (anchored form).
        rest: ``[N]`` float32 spread on *every* token of the vocabulary, or ``None`` for 0.
        max_weight: balance the two columns of the dummy form (:func:`balanced`); ``None``: as they are.
    """

    ids: Tensor
    coefficients: Tensor
    rest: Tensor | None = None
    max_weight: float | None = None


def supervised(actions: Tensor, weights: Tensor | None = None) -> TargetDistribution:
    """Plain cross-entropy: behaviour cloning, and Q-SFT with every weight 1.

    Args:
        actions: ``[N]`` int64 logged tokens.
        weights: ``[N]``, of each token's cross-entropy; ``None``: 1.
    """
    if weights is None:
        weights = torch.ones_like(actions, dtype=torch.float32)
    return TargetDistribution(actions[:, None], weights[:, None])


def dummy(actions: Tensor, weights: Tensor, dummy_id: int) -> TargetDistribution:
    """``- [w log p(a) + (1 - w) log p(d)]``; its optimum is ``p(a|s) = pi(a|s) E[w|s, a]``, exactly.

    Args:
        actions: ``[N]`` int64 logged tokens.
        weights: ``[N]`` float32 in [0, 1].
        dummy_id: the token that is never an action.
    """
    ids = torch.stack([actions, torch.full_like(actions, dummy_id)], dim=1)
    return TargetDistribution(ids, torch.stack([weights, 1 - weights], dim=1))


def balanced(actions: Tensor, weights: Tensor, dummy_id: int, max_weight: float) -> TargetDistribution:
    """The dummy form, its policy part divided by the state's value: every state teaches which actions to take.

    With ``alive = 1 - p(d|s)``, the state's value, and ``q = p / alive``, the policy among actions, the dummy form is
    ``- [w log alive + (1 - w) log p(d)] - w log q(a)``: a binary cross-entropy that fits the value, and cross-entropy of
    the policy that a state of small value hardly takes part in. Here its weight is relative to the value:

        - [w log alive + (1 - w) log p(d)] - min(w / alive, max_weight) log q(a)

    ``alive`` without gradient in the weight. A factor that depends on the state alone leaves the optimum where it is,
    ``p = pi E[w|s, a]`` (up to weights that are cut). ``w / alive`` is how many times better than usual it went on, as in
    advantage-weighted regression, with the model's own value for a baseline.

    Args:
        actions: ``[N]`` int64 logged tokens.
        weights: ``[N]`` float32 in [0, 1].
        dummy_id: the token that is never an action.
        max_weight: above it the policy's weights are cut; a few lucky episodes would be all that counts otherwise.
    """
    return dummy(actions, weights, dummy_id)._replace(max_weight=max_weight)


def balance(coefficients: Tensor, logps: Tensor, max_weight: float) -> tuple[Tensor, Tensor]:
    """The balanced form's loss, and the coefficients of the cross-entropy that has the same gradient.

    Args:
        coefficients: ``[N, 2]``, of the logged and the dummy token in the dummy form.
        logps: ``[N, 2]``, the model's log-probabilities of the two.
        max_weight: see :func:`balanced`.

    Returns:
        Coefficients ``[N, 2]`` and losses ``[N]``.
    """
    weight, lost = coefficients.unbind(dim=1)
    died = logps[:, 1].exp()
    alive = (1 - died).clamp_min(torch.finfo(died.dtype).eps)
    policy = (weight / alive.detach()).clamp_max(max_weight)
    loss = -((weight - policy) * alive.log() + lost * logps[:, 1] + policy * logps[:, 0])
    # log alive pulls at the dummy token by -p(d) / alive, and at all others together by as much the other way
    return torch.stack([policy, lost - (weight - policy) * died / alive], dim=1), loss


def anchored(
    actions: Tensor,
    weights: Tensor,
    baselines: Tensor,
    support_ids: Tensor,
    support_logps: Tensor,
    dummy_id: int,
) -> TargetDistribution:
    """The dummy form with the behaviour model as control variate.

    ``- [w log p(a) + (1 - w) log p(d)] + b (1[a in support] log p(a) - sum_{a' in support} pi(a') log p(a'))``

    The bracket times ``b`` has mean zero when ``a`` is drawn from ``pi``, so the expected gradient and the fixed point
    are those of the dummy form, while the logged token's random coefficient shrinks from ``w`` to ``w - b``. With
    ``b = 1 - p(d|s)`` of the target network, the state's value under the behaviour, ``w - b`` is an advantage.
    An action outside the support keeps its dummy-form weight: the control variate knows nothing about it.

    Args:
        actions: ``[N]`` int64 logged tokens.
        weights: ``[N]`` float32 in [0, 1].
        baselines: ``[N]`` float32, ``b``; anything that does not depend on the logged action.
        support_ids: ``[N, K]`` int64, -1 where padded.
        support_logps: ``[N, K]`` float32 log-probabilities of the behaviour model, -inf where padded.
        dummy_id: the token that is never an action.
    """
    inside = (support_ids == actions[:, None]).any(dim=1)
    first = weights - baselines * inside
    ids = torch.cat([actions[:, None], torch.full_like(actions, dummy_id)[:, None], support_ids.clamp_min(0)], dim=1)
    anchor = baselines[:, None] * support_logps.exp()
    return TargetDistribution(ids, torch.cat([first[:, None], (1 - weights)[:, None], anchor], dim=1))


def uniform(actions: Tensor, weights: Tensor, vocabulary: int) -> TargetDistribution:
    """``- [w log p(a) + (1 - w) / (V - 1) sum_{a' != a} log p(a')]``: the form that the paper trains with.

    The left-over mass leaks onto every other action. Divided by a small ``pi`` it dominates any maximum, so targets
    need a support and clipping; kept for comparison.

    Args:
        actions: ``[N]`` int64 logged tokens.
        weights: ``[N]`` float32 in [0, 1].
        vocabulary: V.
    """
    rest = (1 - weights) / (vocabulary - 1)
    return TargetDistribution(actions[:, None], (weights - rest)[:, None], rest)
