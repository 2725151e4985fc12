"""One training step of each value baseline as one module; `losses` has those of SFT and Q-SFT."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from qsft import objectives
from qsft.models.states import has_action, output_head, state_hidden
from qsft.models.value_model import ValueHead, ValueModel
from qsft.objectives import Targets
from qsft.training.critic_config import (
    ArcherConfig,
    AWRConfig,
    CQLConfig,
    CriticConfig,
    ILQLConfig,
    MonteCarloConfig,
    QTransformerConfig,
)
from qsft.training.losses import SupervisedLoss


class CriticLoss(SupervisedLoss):
    """What the critics share: a language model with heads, and targets in [0, 1]."""

    model: ValueModel

    def __init__(self, model: ValueModel, settings: CriticConfig, chunk_size: int = 256) -> None:
        super().__init__(model, chunk_size)
        self.settings = settings

    def update_target(self, rate: float) -> None:
        """Move the target heads the share ``rate`` of the way."""
        self.model.update_target(rate)

    def bellman_targets(self, batch: dict[str, Tensor], values: Tensor, trace: float = 0.0) -> Targets:
        """Targets from scaled values ``[B, S]`` of the states."""
        return objectives.bellman_targets(
            values.detach(),
            batch["rewards"],
            has_action(batch),
            batch["turn_end"],
            batch["terminal"],
            batch["state_mask"],
            self.settings.return_range,
            self.settings.gamma,
            self.settings.gamma_per,
            trace,
        )

    def return_targets(self, batch: dict[str, Tensor]) -> Targets:
        """The scaled return-to-go."""
        return objectives.monte_carlo_targets(batch["returns_to_go"], has_action(batch), self.settings.return_range)

    def values(self, batch: dict[str, Tensor], states: Tensor) -> Tensor:
        """``V`` of every state ``[B, S]`` of its hidden states ``[N, d]``; 0 where padded."""
        assert self.model.v is not None
        return _on_grid(self.model.v(states)[:, 0], batch["state_mask"])

    def cross_entropy(
        self, states: Tensor, actions: Tensor, weights: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """The language model's loss summed over states, and its metrics."""
        weight, bias = output_head(self.model.language_model)
        fitted = objectives.supervised(actions, weights)
        total, logps = objectives.linear_cross_entropy(states, weight, bias, fitted, self.chunk_size)
        return total, {"action_logp": (logps.sum(), logps.numel())}


class MonteCarloLoss(CriticLoss):
    """Q heads over the vocabulary regressed to the return-to-go, the conservative term, and the language model's own."""

    settings: MonteCarloConfig

    def total(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        acted = has_action(batch)
        states = state_hidden(self.model.language_model, batch)
        chosen, actions = states[acted[batch["state_mask"]]], batch["actions"][acted]
        targets, total, metrics = self.targets(batch, states)
        weights, defined = targets.weights[acted], targets.valid[acted]
        hidden, layers = _parts(self.model.q, chosen)
        q = [objectives.token_q(h, *layer, actions) for h, layer in zip(hidden, layers, strict=True)]
        q_loss = objectives.q_regression(q, weights, defined)
        total = total + q_loss
        metrics |= {
            "q_loss": (q_loss.detach(), len(actions)),
            "q_mean": (torch.minimum(*q).detach().sum(), len(actions)),
            "target_mean": (weights.sum(), defined.sum()),
            "clipped_share": (targets.clipped.sum(), defined.sum()),
        }
        if self.settings.cql_scale > 0:
            # the Q-values as logits: the logged token's above all others
            logged = objectives.supervised(actions)
            conservative = torch.stack(
                [
                    objectives.linear_cross_entropy(h, *layer, logged, self.chunk_size)[0]
                    for h, layer in zip(hidden, layers, strict=True)
                ]
            ).sum()
            total = total + self.settings.cql_scale * conservative
            metrics["cql_loss"] = (conservative.detach(), len(actions))
        behaviour, more = self.cross_entropy(chosen, actions)
        return total + self.settings.behaviour_scale * behaviour, {**metrics, **more}

    def targets(self, batch: dict[str, Tensor], states: Tensor) -> tuple[Targets, Tensor, dict[str, Any]]:
        """What the Q-values of the logged tokens are regressed to, the loss of what the targets are made with, metrics."""
        return self.return_targets(batch), states.new_zeros(()), {}


class CQLLoss(MonteCarloLoss):
    """Bellman targets with the maximum over the whole vocabulary of the smaller target Q-value."""

    settings: CQLConfig

    def targets(self, batch: dict[str, Tensor], states: Tensor) -> tuple[Targets, Tensor, dict[str, Any]]:
        with torch.no_grad():
            best = objectives.max_min_q(*_parts(self.model.target_q, states), self.chunk_size)
        values = _on_grid(best, batch["state_mask"])
        return self.bellman_targets(batch, values, self.settings.trace), states.new_zeros(()), _first(values)


class ILQLLoss(MonteCarloLoss):
    """Bellman targets with V, which is an expectile of the smaller target Q-value of the logged tokens."""

    settings: ILQLConfig

    def targets(self, batch: dict[str, Tensor], states: Tensor) -> tuple[Targets, Tensor, dict[str, Any]]:
        acted = has_action(batch)
        values = self.values(batch, states)
        with torch.no_grad():
            chosen, actions = states[acted[batch["state_mask"]]], batch["actions"][acted]
            hidden, layers = _parts(self.model.target_q, chosen)
            q = [objectives.token_q(h, *layer, actions) for h, layer in zip(hidden, layers, strict=True)]
        v_loss = objectives.expectile_regression(values[acted], torch.minimum(*q), self.settings.tau)
        metrics = {"v_loss": (v_loss.detach(), len(actions)), **_first(values)}
        return self.bellman_targets(batch, values, self.settings.trace), v_loss, metrics


class QTransformerLoss(CriticLoss):
    """Q of the agent's tokens: the backup token by token, and those that were not taken at the lowest return."""

    settings: QTransformerConfig

    def total(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        acted = has_action(batch)
        states = state_hidden(self.model.language_model, batch)
        chosen, actions = states[acted[batch["state_mask"]]], batch["actions"][acted]
        ids = torch.tensor(self.model.config.action_tokens, device=actions.device)
        targets, metrics = self.targets(batch, states, ids)
        weights, defined = targets.weights[acted], targets.valid[acted]
        taken = torch.searchsorted(ids, actions)
        hidden, layers = _parts(self.model.q, chosen, ids)
        total, parts = states.new_zeros(()), []
        for h, (weight, bias) in zip(hidden, layers, strict=True):
            q = nn.functional.linear(h, weight.to(h.dtype), bias.to(h.dtype)).float()
            loss, found = objectives.q_transformer_loss(
                q, taken, weights, defined, low=0.0, conservatism=self.settings.conservatism
            )
            total = total + loss * defined.sum()
            parts.append({**found, "q": q.detach().gather(-1, taken[:, None])[:, 0]})
        count = defined.sum()
        metrics |= {
            "q_loss": (sum(part["td"] for part in parts) * count, count),
            "conservative_loss": (sum(part["conservative"] for part in parts) * count, count),
            "q_mean": (torch.minimum(*(part["q"] for part in parts)).sum(), len(actions)),
            "target_mean": (weights.sum(), count),
            "clipped_share": (targets.clipped.sum(), count),
        }
        behaviour, more = self.cross_entropy(chosen, actions)
        return total + self.settings.behaviour_scale * behaviour, {**metrics, **more}

    @torch.no_grad()
    def targets(self, batch: dict[str, Tensor], states: Tensor, ids: Tensor) -> tuple[Targets, dict[str, Any]]:
        """Scaled targets ``[B, S]``, with the smaller of the target heads at the best of the agent's tokens ``ids``."""
        low, high = self.settings.return_range
        best = objectives.max_min_q(*_parts(self.model.target_q, states, ids), self.chunk_size)
        values = _on_grid(best, batch["state_mask"])
        targets, valid = objectives.q_transformer_targets(
            low + values * (high - low),
            batch["rewards"],
            has_action(batch),
            batch["turn_end"],
            batch["terminal"],
            batch["state_mask"],
            self.settings.gamma,
            self.settings.steps,
            batch["returns_to_go"] if self.settings.lower_bound else None,
        )
        return objectives.clipped_targets((targets - low) / (high - low), valid), _first(values)


class AWRLoss(CriticLoss):
    """V regressed to the return-to-go, and cross-entropy weighted with how far the return-to-go is above it."""

    settings: AWRConfig

    def total(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        acted = has_action(batch)
        states = state_hidden(self.model.language_model, batch)
        chosen, actions = states[acted[batch["state_mask"]]], batch["actions"][acted]
        grid = self.values(batch, states)
        values, targets = grid[acted], self.return_targets(batch)
        returns = targets.weights[acted]
        weights = objectives.advantage_weights(returns - values, self.settings.temperature, self.settings.max_weight)
        v_loss = (values - returns).square().sum()
        fitted, metrics = self.cross_entropy(chosen, actions, weights)
        metrics |= {
            "v_loss": (v_loss.detach(), len(actions)),
            "target_mean": (returns.sum(), len(actions)),
            "clipped_share": (targets.clipped.sum(), len(actions)),
            **_first(grid),
            **_weight_metrics(weights, self.settings.max_weight),
        }
        return v_loss + fitted, metrics


class ArcherLoss(CriticLoss):
    """An implicit Q-learning critic of whole turns, and token cross-entropy weighted with its advantages.

    The critic's terms are means over turns, the actor's over tokens: neither grows with the length of a turn.

    Attributes:
        tokens_a_turn: of all micro-batches of a training step, which the trainer sets; ``None``: of the batch at hand.
    """

    settings: ArcherConfig
    tokens_a_turn: Tensor | None = None

    def total(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        acted, mask, ends = has_action(batch), batch["state_mask"], batch["turn_end"]
        states, said = self._states(batch)
        first, _ = objectives.turn_bounds(ends)
        places = torch.arange(mask.shape[1], device=mask.device)
        starts = acted & (first == places)
        values = self.values(batch, states)
        targets = self.bellman_targets(batch, values)
        weights, defined = targets.weights[ends], targets.valid[ends]
        q_loss = objectives.q_regression([head(said)[:, 0] for head in self.model.q], weights, defined)
        with torch.no_grad():
            q = torch.minimum(*(head(said)[:, 0] for head in self.model.target_q))
        v_loss = objectives.expectile_regression(values[starts], q, self.settings.tau)
        advantages = objectives.turn_advantages(_on_grid(q, ends), values.detach(), ends)[acted]
        imitated = objectives.advantage_weights(advantages, self.settings.temperature, self.settings.max_weight)
        actor, metrics = self.cross_entropy(states[acted[mask]], batch["actions"][acted], imitated)
        turns = max(len(q), 1)
        metrics |= {
            "q_loss": (q_loss.detach(), turns),
            "v_loss": (v_loss.detach(), turns),
            "q_mean": (q.sum(), turns),
            "target_mean": (weights.sum(), defined.sum()),
            "clipped_share": (targets.clipped[ends].sum(), defined.sum()),
            **_first(values),
            **_weight_metrics(imitated, self.settings.max_weight),
        }
        # forward() divides by tokens
        known = self.tokens_a_turn if self.training else None
        return (q_loss + v_loss) * (acted.sum() / turns if known is None else known) + actor, metrics

    def _states(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Hidden states ``[N, d]`` of the batch's states, and ``[turns, d]`` behind the last token of each turn."""
        mask, ends = batch["state_mask"], batch["turn_end"]
        behind = {
            **batch,
            "state_positions": torch.cat([batch["state_positions"], batch["state_positions"] + ends], dim=1),
            "state_mask": torch.cat([mask, ends], dim=1),
        }
        if "state_rows" in batch:
            behind["state_rows"] = batch["state_rows"].repeat(1, 2)
        hidden = state_hidden(self.model.language_model, behind)
        is_state = torch.cat([torch.ones_like(mask), torch.zeros_like(mask)], dim=1)[behind["state_mask"]]
        return hidden[is_state], hidden[~is_state]


def _parts(
    heads: nn.ModuleList, states: Tensor, ids: Tensor | slice = slice(None)
) -> tuple[list[Tensor], list[tuple[Tensor, Tensor]]]:
    """Of each head its hidden layer ``[N, 2d]``, and weight and bias of its output layer, for the tokens ``ids``."""
    known = cast("list[ValueHead]", list(heads))
    return [head.hidden(states) for head in known], [(head.outer.weight[ids], head.outer.bias[ids]) for head in known]


def _on_grid(values: Tensor, mask: Tensor) -> Tensor:
    """``[N]`` to ``[B, S]`` float32, 0 where the mask is False."""
    grid = torch.zeros(mask.shape, dtype=torch.promote_types(values.dtype, torch.float32), device=mask.device)
    return grid.index_put((mask,), values.to(grid.dtype))


def _first(values: Tensor) -> dict[str, tuple[Tensor, Tensor | int]]:
    return {"first_value": (values[:, 0].detach().sum(), len(values))}


def _weight_metrics(weights: Tensor, max_weight: float) -> dict[str, tuple[Tensor, Tensor | int]]:
    return {
        "weight_mean": (weights.sum(), len(weights)),
        "weight_clipped": ((weights >= max_weight).sum(), len(weights)),
    }
