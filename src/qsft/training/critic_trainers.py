"""Trainers of the value baselines' second stage."""

from __future__ import annotations

from typing import Any, ClassVar

import datasets
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, set_seed

from qsft.data.batch import TrajectoryCollator, pad_token
from qsft.data.dataset import agent_token_ids
from qsft.data.images import image_inputs
from qsft.data.returns import ReturnRange
from qsft.errors import ConfigError
from qsft.models.extraction import Extraction
from qsft.models.states import output_head
from qsft.models.value_model import ValueModel
from qsft.training.callbacks import FollowModel
from qsft.training.config import SFTConfig
from qsft.training.critic_config import (
    ArcherConfig,
    AWRConfig,
    CQLConfig,
    CriticConfig,
    ILQLConfig,
    MonteCarloConfig,
    QTransformerConfig,
)
from qsft.training.critic_losses import (
    ArcherLoss,
    AWRLoss,
    CQLLoss,
    CriticLoss,
    ILQLLoss,
    MonteCarloLoss,
    QTransformerLoss,
)
from qsft.training.trainer import SFTTrainer


class CriticTrainer(SFTTrainer):
    """Puts heads on a language model and trains both.

    Args:
        model: a causal LM; it is trained on, inside a :class:`~qsft.models.value_model.ValueModel`.
        args: the method's config with ``return_low`` and ``return_high`` set.
        train_dataset: tokenised trajectories.
        processing_class: the tokenizer.
        kwargs: passed to ``transformers.Trainer``.
    """

    args: CriticConfig
    config_class: ClassVar[type[CriticConfig]] = CriticConfig
    loss_class: ClassVar[type[CriticLoss]]
    #: Q-values a state: one for each token of the vocabulary, one of the whole turn, or none
    q_values: ClassVar[str] = "tokens"
    target_heads: ClassVar[bool] = False
    state_value: ClassVar[bool] = False

    def __init__(
        self,
        model: PreTrainedModel,
        args: CriticConfig,
        train_dataset: datasets.Dataset,
        processing_class: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, args, train_dataset, processing_class, **kwargs)
        if self.target_heads:
            self.add_callback(FollowModel(self))

    def prepare(self, model: Any, args: SFTConfig, dataset: datasets.Dataset, tokenizer: Any) -> None:
        super().prepare(model, args, dataset, tokenizer)
        assert isinstance(args, CriticConfig)
        if model.dtype != torch.float32:
            raise ConfigError(
                f"model: is in {model.dtype}, in which heads do not learn; load it in float32, and compute in half "
                "precision with bf16."
            )
        ReturnRange(*args.return_range).check(dataset, args.gamma, args.gamma_per, "train_dataset")

    def make_loss(self, model: nn.Module, args: SFTConfig, tokenizer: Any) -> CriticLoss:
        assert isinstance(args, CriticConfig) and isinstance(model, PreTrainedModel)
        outputs = {"tokens": output_head(model)[0].shape[0], "turns": 1, "none": 0}[self.q_values]
        set_seed(args.seed)  # of the heads' weights
        heads = ValueModel.with_heads(
            model, outputs, self.target_heads, self.state_value, return_range=args.return_range, **self.play_settings()
        )
        return self.loss_class(heads, args, args.loss_chunk_size)

    def play_settings(self) -> dict[str, Any]:
        """Settings of the :class:`~qsft.models.value_model.ValueModelConfig` that say how the model plays."""
        return {}

    def output_weights(self) -> list[Tensor]:
        heads = [*self.inner_model.q, *([self.inner_model.v] if self.state_value else [])]
        return [*super().output_weights(), *(head.outer.weight for head in heads)]

    def make_collator(self, args: SFTConfig, tokenizer: Any) -> TrajectoryCollator:
        assert isinstance(args, CriticConfig)
        return TrajectoryCollator(pad_token(tokenizer), args.gamma, args.gamma_per, image_inputs(tokenizer))


class MonteCarloTrainer(CriticTrainer):
    """``monte-carlo``."""

    config_class, loss_class = MonteCarloConfig, MonteCarloLoss


class CQLTrainer(CriticTrainer):
    """``cql``."""

    config_class, loss_class = CQLConfig, CQLLoss
    target_heads = True


class ILQLTrainer(CriticTrainer):
    """``ilql``."""

    config_class, loss_class = ILQLConfig, ILQLLoss
    target_heads = state_value = True


class QTransformerTrainer(CriticTrainer):
    """``q-transformer``: plays the best of the tokens that the agent produces anywhere in the data."""

    config_class, loss_class = QTransformerConfig, QTransformerLoss
    target_heads = True

    def prepare(self, model: Any, args: SFTConfig, dataset: datasets.Dataset, tokenizer: Any) -> None:
        super().prepare(model, args, dataset, tokenizer)
        self._action_tokens = agent_token_ids(dataset).tolist()

    def play_settings(self) -> dict[str, Any]:
        greedy = Extraction("advantage", eta=0.0)
        return {"action_tokens": self._action_tokens, "extraction": greedy.to_dict()}


class ActorTrainer(CriticTrainer):
    """A critic that serves its policy while training: what remains is an ordinary language model."""

    state_value = True

    def make_loss(self, model: nn.Module, args: SFTConfig, tokenizer: Any) -> CriticLoss:
        loss = super().make_loss(model, args, tokenizer)
        for head in (*loss.model.q, *loss.model.target_q, loss.model.v):
            # in the middle of the range: far below the returns, every weight would begin at its clip
            nn.init.constant_(head.outer.bias, 0.5)
        return loss

    @property
    def finished_model(self) -> PreTrainedModel:
        return self.inner_model.language_model


class AWRTrainer(ActorTrainer):
    """``awr``."""

    config_class, loss_class = AWRConfig, AWRLoss
    q_values = "none"


class ArcherTrainer(ActorTrainer):
    """``archer-offline``."""

    config_class, loss_class = ArcherConfig, ArcherLoss
    q_values, target_heads = "turns", True

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor | int | None:
        tokens = super()._get_num_items_in_batch(batch_samples, device)
        assert isinstance(self.loss_module, ArcherLoss) and tokens is not None
        turns = self._total([batch["turn_end"].sum() for batch in batch_samples], device)
        self.loss_module.tokens_a_turn = tokens / turns.clamp_min(1)
        return tokens


#: The methods whose second stage is a critic.
CRITICS: dict[str, type[CriticTrainer]] = {
    "ilql": ILQLTrainer,
    "cql": CQLTrainer,
    "q-transformer": QTransformerTrainer,
    "monte-carlo": MonteCarloTrainer,
    "awr": AWRTrainer,
    "archer-offline": ArcherTrainer,
}
