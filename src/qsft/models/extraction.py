"""Ways out: from the models' log-probabilities and values to the policy's logits.

Source: Q-SFT, section 4.3 (arXiv 2411.05193) for the likelihood extraction; the value extraction is the KL-regularised
optimum for the Q-values that the ratio holds; the product extraction follows from ``p = pi Q``. The advantage
extraction is that of ILQL (Snell et al. 2023, arXiv 2206.11871), for models with a Q head.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from qsft.errors import ConfigError
from qsft.models.support import SupportRule
from qsft.objectives import q_ratios

#: How much lower logits outside the support lie: never drawn, yet in order, for a player who is allowed nothing inside.
OUTSIDE = 1e4

Kind = Literal["product", "value", "likelihood", "advantage"]


@dataclass(frozen=True)
class Extraction:
    """How the next token is drawn.

    Args:
        kind: ``"product"``: ``p(a)``, the dummy token removed: the likelihood model alone. ``"value"``:
            ``pi(a)^eta exp(beta clip(Q(a), 0, 1))`` on the support, ``Q = p / pi``. ``"likelihood"`` (the paper's):
            ``pi(a) exp(beta p(a))``. ``"advantage"``: ``pi(a)^eta exp(beta Q(a))`` with the Q heads of a
            :class:`~qsft.models.value_model.ValueModel`, whose language model is ``pi``.
        beta: weight of the values, in units of the scaled return; unused by ``product``.
        eta: exponent of the behaviour model in ``value`` and ``advantage``.
        support: threshold of the support relative to the likeliest token of the behaviour model (of the likelihood
            model for ``product``); 0 for none. Without one, ``value`` plays ratios of tiny probabilities: noise.
    """

    kind: Kind = "product"
    beta: float = 64.0
    eta: float = 1.0
    support: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in ("product", "value", "likelihood", "advantage"):
            raise ConfigError(
                f"extraction kind: {self.kind!r} is unknown; use 'product', 'value', 'likelihood' or 'advantage'."
            )
        if not (0 <= self.beta < math.inf and 0 <= self.eta < math.inf):
            raise ConfigError(f"extraction: beta ({self.beta}) and eta ({self.eta}) must be finite and not negative.")
        if not 0 <= self.support <= 1:
            raise ConfigError(f"extraction support: {self.support} is outside [0, 1]; 0 switches it off.")

    @property
    def needs_behaviour(self) -> bool:
        """Whether the behaviour model must be loaded and run."""
        return self.kind in ("value", "likelihood")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def policy_logits(
        self,
        likelihood_logits: Tensor,
        behaviour_logits: Tensor | None,
        dummy_id: int | None,
        weight_temperature: float | None = None,
    ) -> Tensor:
        """Unnormalised log-probabilities of the policy.

        Args:
            likelihood_logits: ``[..., V]``.
            behaviour_logits: ``[..., V]``; ``None`` for ``product``.
            dummy_id: never drawn; ``None`` for a model without one (supervised fine-tuning).
            weight_temperature: of the exponential weights that the model was trained with: ``p / pi = exp((Q - 1) / T)``.

        Returns:
            ``[..., V]`` float32: -inf for the dummy token, 10,000 lower outside the support.
        """
        likelihood = torch.log_softmax(likelihood_logits.float(), dim=-1)
        if self.kind == "product":
            prior = scores = likelihood
        else:
            if behaviour_logits is None:
                raise ConfigError(f"extraction {self.kind!r} needs the behaviour model's logits.")
            prior = torch.log_softmax(behaviour_logits.float(), dim=-1)
            if self.kind == "value":
                q = q_ratios(likelihood, prior, weight_temperature)
                scores = self.eta * prior + self.beta * q
            else:
                scores = prior + self.beta * likelihood.exp()
        return self._on_support(_without(scores, dummy_id), _without(prior, dummy_id))

    def advantage_logits(self, logits: Tensor, q: Tensor) -> Tensor:
        """Unnormalised log-probabilities of the ``advantage`` policy; V(s), the same for all tokens, drops out.

        Args:
            logits: ``[..., V]`` of the language model.
            q: ``[..., V]`` scaled Q-values.

        Returns:
            ``[..., V]`` float32.
        """
        prior = torch.log_softmax(logits.float(), dim=-1)
        return self._on_support(self.eta * prior + self.beta * q.float(), prior)

    def _on_support(self, scores: Tensor, prior: Tensor) -> Tensor:
        if self.support == 0:
            return scores
        return torch.where(SupportRule(threshold=self.support).mask(prior), scores, scores - OUTSIDE)


def _without(logps: Tensor, token: int | None) -> Tensor:
    if token is None:
        return logps
    masked = logps.clone()
    masked[..., token] = -torch.inf
    return masked
