"""One training step of each stage as one module, so that parameter sharding sees every use of a weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qsft import objectives
from qsft.models.states import has_action, output_head, state_hidden
from qsft.models.target import TargetNetwork
from qsft.objectives import TargetDistribution, Targets
from qsft.training.config import reads_support, reads_values, value_is_alive


class SupervisedLoss(nn.Module):
    """Cross-entropy on agent tokens: behaviour cloning, which is Q-SFT with every weight 1.

    ``forward(batch...)`` returns ``{"loss", "metrics"}``: the loss is the mean over the logged agent tokens (of the
    whole accumulated batch when ``num_items_in_batch`` is given), metrics are ``{name: (sum, count)}``.
    """

    accepts_loss_kwargs = True

    def __init__(self, model: nn.Module, chunk_size: int = 256) -> None:
        super().__init__()
        self.model = model
        self.chunk_size = chunk_size

    def activation_checkpointing_enable(self, **settings: Any) -> None:
        """What ``Trainer`` calls for ``gradient_checkpointing``: the language model's own."""
        self.model.activation_checkpointing_enable(**settings)  # type: ignore[operator]

    def count_targets(self, batch: dict[str, Tensor]) -> Tensor:
        """Tokens that the loss of a batch is a sum over."""
        return has_action(batch).sum()

    def forward(self, num_items_in_batch: Tensor | int | None = None, **batch: Tensor) -> dict[str, Any]:
        total, metrics = self.total(batch)
        count = self.count_targets(batch) if num_items_in_batch is None else torch.as_tensor(num_items_in_batch)
        metrics["tokens"] = (batch["attention_mask"].sum(), 1)
        # a batch in which no token has a target has loss 0, not 0 / 0
        return {"loss": total / count.clamp_min(1), "metrics": metrics}

    def total(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        """The loss summed over the batch's targets, and metrics; every parameter's use is in here."""
        valid = has_action(batch)
        fitted, metrics = self.fitted_distribution(batch, valid)
        states = state_hidden(self.model, batch)
        weight, bias = output_head(self.model)
        hidden = states[valid[batch["state_mask"]]]
        total, logps = objectives.linear_cross_entropy(hidden, weight, bias, fitted, self.chunk_size)
        metrics["action_logp"] = (logps.sum(), logps.numel())
        metrics.update(self.state_metrics(batch, states.detach()))
        return total, metrics

    def state_metrics(self, batch: dict[str, Tensor], states: Tensor) -> dict[str, tuple[Tensor, Tensor | int]]:
        """More metrics, from the hidden states ``[N, d]`` of the batch's states."""
        return {}

    def fitted_distribution(
        self, batch: dict[str, Tensor], valid: Tensor
    ) -> tuple[TargetDistribution, dict[str, tuple[Tensor, Tensor | int]]]:
        """What the states with a logged action are fitted to."""
        return objectives.supervised(batch["actions"][valid]), {}


@dataclass(frozen=True)
class QLossSettings:
    """The part of :class:`~qsft.training.config.QSFTConfig` that the loss reads."""

    form: str
    backup: str
    backup_beta: float
    trace: float
    gamma: float
    gamma_per: str
    return_range: tuple[float, float]
    horizon: int | None
    dummy_id: int
    max_weight: float = 20.0
    weight_temperature: float | None = None

    @property
    def reads_values(self) -> bool:
        """Whether targets or form read the target network's values; if not, it is not run."""
        return reads_values(self.form, self.backup)

    @property
    def reads_support(self) -> bool:
        """Whether these, or the form, need the tokens of the support table."""
        return reads_support(self.form, self.backup, self.weight_temperature)

    def bounds(self, turns: Tensor) -> tuple[float | Tensor, float]:
        """The return range of states in these agent turns, from what is still at stake with a horizon."""
        low, high = self.return_range
        return (low if self.horizon is None else objectives.stake(low, turns, self.horizon)), high

    def monte_carlo(self, batch: dict[str, Tensor]) -> Targets:
        """The weights that returns-to-go give to the logged tokens."""
        bounds = self.bounds(batch["turns"])
        return self.weighted(objectives.monte_carlo_targets(batch["returns_to_go"], has_action(batch), bounds))

    def weighted(self, targets: Targets) -> Targets:
        """Scaled targets as the weights of the loss."""
        if self.weight_temperature is None:
            return targets
        weights = objectives.exponential_weights(targets.weights, self.weight_temperature)
        return targets._replace(weights=weights.masked_fill(~targets.valid, 0.0))


class QLoss(SupervisedLoss):
    """Stage 2: the same cross-entropy, weighted by Bellman targets.

    One forward pass of the target network gives ``V`` of every state, one of the likelihood model the loss of every
    agent token of every turn. With Monte-Carlo targets and the dummy form the first is not needed.
    """

    def __init__(self, model: nn.Module, target: TargetNetwork, settings: QLossSettings, chunk_size: int = 256) -> None:
        super().__init__(model, chunk_size)
        self.target = target
        self.settings = settings
        self.monte_carlo_only = False

    def update_target(self, rate: float) -> None:
        """Move the target network the share ``rate`` of the way."""
        self.target.update(self.model, rate)

    def count_targets(self, batch: dict[str, Tensor]) -> Tensor:
        if self.settings.backup == "monte-carlo" or self.monte_carlo_only:
            return has_action(batch).sum()
        return objectives.has_target(has_action(batch), batch["terminal"], batch["state_mask"]).sum()

    def fitted_distribution(
        self, batch: dict[str, Tensor], valid: Tensor
    ) -> tuple[TargetDistribution, dict[str, tuple[Tensor, Tensor | int]]]:
        if self.settings.reads_values:
            values, alive = self.state_values(batch)
        else:
            values = alive = torch.zeros(batch["state_mask"].shape, device=batch["state_mask"].device)
        targets = self.targets(batch, values)
        actions, weights, counted = batch["actions"][valid], targets.weights[valid], targets.valid[valid]
        form = self.settings.form
        if form == "anchored":
            fitted = objectives.anchored(
                actions,
                weights,
                alive[valid],
                batch["support_ids"][valid],
                batch["support_logps"][valid],
                self.settings.dummy_id,
            )
        elif form == "balanced":
            fitted = objectives.balanced(actions, weights, self.settings.dummy_id, self.settings.max_weight)
        elif form == "dummy":
            fitted = objectives.dummy(actions, weights, self.settings.dummy_id)
        else:
            fitted = objectives.uniform(actions, weights, output_head(self.model)[0].shape[0])
        # a state without a target has coefficients 0: it is in the pass but not in the loss
        fitted = fitted._replace(
            coefficients=fitted.coefficients * counted[:, None],
            rest=None if fitted.rest is None else fitted.rest * counted,
        )
        count = counted.sum()
        metrics: dict[str, tuple[Tensor, Tensor | int]] = {
            "target_mean": (weights.sum(), count),
            "target_square": (weights.square().sum(), count),
            "clipped_share": (targets.clipped[valid].sum(), count),
            "first_return": (self._scaled(batch["returns_to_go"][:, 0]).sum(), len(values)),
        }
        if self.settings.reads_values:
            metrics["first_value"] = (values[:, 0].sum(), len(values))
        return fitted, metrics

    @torch.no_grad()
    def state_metrics(self, batch: dict[str, Tensor], states: Tensor) -> dict[str, tuple[Tensor, Tensor | int]]:
        if self.settings.reads_values:
            return {}
        # without a target network's value there is what the model itself holds in 1 - p(dummy), E[Q] without a temperature
        mask = batch["state_mask"]
        first = states[mask.sum(1).cumsum(0) - mask.sum(1)]
        weight, bias = output_head(self.model)
        dummies = torch.full((len(first), 1), self.settings.dummy_id, device=first.device)
        logps = objectives.linear_log_probabilities(first, weight, bias, dummies, self.chunk_size)
        return {"first_value": (self._alive(logps)[1].sum(), len(first))}

    def _alive(self, dummy_logps: Tensor) -> tuple[Tensor, Tensor]:
        """``1 - p(dummy)``, and the scaled value that it stands for."""
        alive = (-torch.expm1(dummy_logps)).clamp_min(torch.finfo(dummy_logps.dtype).eps)
        return alive, objectives.scaled_value(alive.log(), self.settings.weight_temperature).clamp(0.0, 1.0)

    @torch.no_grad()
    def state_values(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """What the target network makes of every state, in one forward pass, without gradient.

        Args:
            batch: a :class:`~qsft.data.batch.TokenBatch` with the support table's columns, where these are read.

        Returns:
            ``[B, S]`` scaled values ``V``: the backup (``max`` or ``soft``) of the ratios of the support's tokens; the
            soft backup of exponential weights is what ``1 - p(dummy)`` stands for, ``T log sum_a pi(a) exp(Q(a) / T)``.
            ``[B, S]`` ``1 - p(dummy)``. Both 0 where padded.
        """
        mask = batch["state_mask"]
        settings = self.settings
        ids = torch.full((int(mask.sum()), 1), settings.dummy_id, device=mask.device)
        if settings.reads_support:
            ids = torch.cat([ids, batch["support_ids"][mask]], dim=1)
        hidden = self.target.hidden(self.model, batch)
        weight, bias = self.target.head(self.model)
        likelihood = objectives.linear_log_probabilities(hidden, weight, bias, ids, self.chunk_size)
        values, alive = torch.zeros(mask.shape, device=mask.device), torch.zeros(mask.shape, device=mask.device)
        alive[mask], value = self._alive(likelihood[:, 0])
        if not value_is_alive(settings.backup, settings.weight_temperature):
            logps = batch["support_logps"][mask]
            q = objectives.q_ratios(likelihood[:, 1:], logps, settings.weight_temperature)
            if settings.backup == "soft":
                value = objectives.soft_value(q, logps, settings.backup_beta)
            else:
                value = objectives.max_value(q, logps)
        values[mask] = value
        return values, alive

    def targets(self, batch: dict[str, Tensor], values: Tensor) -> Targets:
        """Weights of the logged tokens: scaled targets, from the floor of their turn up where there is a horizon.

        Args:
            batch: a :class:`~qsft.data.batch.TokenBatch`.
            values: ``[B, S]`` scaled values of the states (:meth:`state_values`); not read for Monte-Carlo targets.

        Returns:
            :class:`~qsft.objectives.Targets`, ``[B, S]`` each: Monte-Carlo or Bellman targets, as the settings say.
        """
        settings = self.settings
        if settings.backup == "monte-carlo" or self.monte_carlo_only:
            return settings.monte_carlo(batch)
        targets = objectives.bellman_targets(
            values,
            batch["rewards"],
            has_action(batch),
            batch["turn_end"],
            batch["terminal"],
            batch["state_mask"],
            settings.bounds(batch["turns"]),
            settings.gamma,
            settings.gamma_per,
            settings.trace,
        )
        return settings.weighted(targets)

    def _scaled(self, value: Tensor) -> Tensor:
        low, high = self.settings.return_range
        return (value - low) / (high - low)
