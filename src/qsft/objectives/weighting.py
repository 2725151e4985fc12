"""Cross-entropy weights from advantages: the policy improvement of AWR, AWAC and offline ArCHer.

Source: Peng, Kumar, Zhang, Levine, "Advantage-Weighted Regression", 2019 (arXiv 1910.00177), equation 9; Nair, Gupta,
Dalal, Levine, "AWAC", 2020 (arXiv 2006.09359), equation 13.
"""

from __future__ import annotations

from torch import Tensor


def advantage_weights(advantages: Tensor, temperature: float, max_weight: float) -> Tensor:
    """``min(exp(A / temperature), max_weight)``, without a gradient.

    ``pi exp(A / temperature)`` is the KL-regularised improvement on the behaviour ``pi``; cross-entropy with these
    weights fits it.

    Args:
        advantages: ``[...]`` in units of the scaled return.
        temperature: small ones imitate only what did better than the state's value.
        max_weight: above it weights are clipped; a few lucky episodes would be all that is imitated otherwise.
    """
    return (advantages.detach() / temperature).exp().clamp_max(max_weight)
