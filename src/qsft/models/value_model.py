"""A causal LM with value heads on its hidden states: one model for the critic and for the policy that it steers."""

from __future__ import annotations

import copy
import os
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_outputs import CausalLMOutputWithPast

from qsft.errors import CheckpointError, ConfigError
from qsft.models.extraction import Extraction
from qsft.models.generation import InnerGeneration, ends_of, whole_inputs
from qsft.models.policy_model import Reading, auto_model
from qsft.models.states import output_head, readable_inputs


class ValueModelConfig(PreTrainedConfig):
    """What a language model with value heads is made of.

    Args:
        language_model: its config.
        q_outputs: Q-values a state: the vocabulary's size, 1 (of whole turns), or 0 for no Q heads.
        target_heads: slow copies of the Q heads.
        state_value: a head for V.
        extraction: arguments of :class:`~qsft.models.extraction.Extraction`.
        return_range: ``(low, high)``: a scaled value ``q`` stands for ``low + q (high - low)``.
        action_tokens: ids of the only tokens that have Q-values, in ascending order; ``None``: all.
        sampling_temperature: how :class:`~qsft.policies.model.ModelPolicy` draws; 0 for greedy.
    """

    model_type = "qsft_value"
    has_no_defaults_at_init = True
    #: nothing is masked; :class:`~qsft.policies.model.ModelPolicy` asks
    dummy_token_id = None

    def __init__(
        self,
        language_model: dict[str, Any] | None = None,
        q_outputs: int = 0,
        target_heads: bool = False,
        state_value: bool = False,
        extraction: dict[str, Any] | None = None,
        return_range: tuple[float, float] = (0.0, 1.0),
        action_tokens: list[int] | None = None,
        sampling_temperature: float = 0.0,
        **kwargs: Any,
    ) -> None:
        # where the model was loaded from is no part of it
        self.language_model = {key: value for key, value in (language_model or {}).items() if key != "_name_or_path"}
        self.q_outputs = q_outputs
        self.target_heads = target_heads
        self.state_value = state_value
        self.extraction = extraction or Extraction("advantage", beta=16.0).to_dict()
        self.return_range = tuple(return_range)
        self.action_tokens = action_tokens
        self.sampling_temperature = sampling_temperature
        super().__init__(**kwargs)

    def value(self, scaled: float, turn: int) -> float:
        """A scaled value in reward units, the same at every turn."""
        low, high = self.return_range
        return low + min(max(scaled, 0.0), 1.0) * (high - low)


class ValueHead(nn.Module):
    """``d -> 2d -> outputs`` with a ReLU between: the heads of ILQL."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, 2 * width)
        self.outer = nn.Linear(2 * width, outputs)
        with torch.no_grad():  # values start near 0, and alike for all tokens
            self.outer.weight.normal_(std=0.02)
            self.outer.bias.zero_()

    def hidden(self, states: Tensor) -> Tensor:
        """``[..., d]`` to ``[..., 2d]``."""
        return torch.relu(self.inner(states))

    def forward(self, states: Tensor) -> Tensor:
        return self.outer(self.hidden(states))


class ValueModel(PreTrainedModel, InnerGeneration, GenerationMixin):
    """A language model, two Q heads with their slow copies, and a V head, as the config says.

    ``generate`` plays ``pi(a|s) exp(beta Q(s, a))`` with the smaller of the two Q-values: the extraction ``advantage``.
    Subtracting V(s), as ILQL writes it, would change nothing: it is the same for all tokens of a state.
    """

    config_class = ValueModelConfig
    base_model_prefix = "language_model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True

    def __init__(self, config: ValueModelConfig, language_model: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        if language_model is None:
            inner = AutoConfig.for_model(**config.language_model)
            # the dtype that the heads get, which is the loading's and not the saved config's
            language_model = auto_model(inner).from_config(inner, dtype=torch.get_default_dtype())
        self.language_model = language_model
        width = output_head(language_model)[0].shape[1]
        count = 2 if config.q_outputs else 0
        self.q = nn.ModuleList(ValueHead(width, config.q_outputs) for _ in range(count))
        self.target_q = copy.deepcopy(self.q) if config.target_heads else nn.ModuleList()
        self.target_q.requires_grad_(False)
        self.v = ValueHead(width, 1) if config.state_value else None
        self.extraction = Extraction(**config.extraction)
        self.generation_config = ends_of(language_model)
        self.post_init()

    def init_weights(self) -> None:
        # all parts come with their weights
        self.tie_weights(recompute_mapping=False)

    @classmethod
    def with_heads(
        cls, language_model: PreTrainedModel, q_outputs: int, target_heads: bool, state_value: bool, **settings: Any
    ) -> ValueModel:
        """New heads on a language model in memory; ``settings`` go to :class:`ValueModelConfig`."""
        config = ValueModelConfig(
            language_model=language_model.config.to_dict(),
            q_outputs=q_outputs,
            target_heads=target_heads,
            state_value=state_value,
            **settings,
        )
        model = cls(config, language_model)
        return model.to(language_model.device).train(language_model.training)  # type: ignore[arg-type]

    @property
    def inner(self) -> Any:
        return self.language_model

    @property
    def extraction(self) -> Extraction:
        """How tokens are drawn; assign another :class:`Extraction` to change it."""
        return self._extraction

    @extraction.setter
    def extraction(self, extraction: Extraction) -> None:
        if extraction.needs_behaviour:
            raise ConfigError(
                f"extraction {extraction.kind!r}: this run has value heads and no likelihood model; use 'advantage', "
                "or 'product' for its language model alone."
            )
        self._extraction = extraction
        self.config.extraction = extraction.to_dict()

    def get_output_embeddings(self) -> Any:
        return self.language_model.get_output_embeddings()

    def get_input_embeddings(self) -> Any:
        return self.language_model.get_input_embeddings()

    @torch.no_grad()
    def update_target(self, rate: float) -> None:
        """``theta_bar <- (1 - rate) theta_bar + rate theta`` for the Q heads."""
        torch._foreach_lerp_(list(self.target_q.parameters()), list(self.q.parameters()), rate)

    def played_q(self, states: Tensor) -> Tensor:
        """``[..., d]`` hidden states to ``[..., outputs]`` scaled Q-values: the smaller of the two heads' slow copies.

        Of the heads themselves where there are no copies. Tokens without a Q-value have the lowest of numbers.
        """
        first, second = self.target_q if len(self.target_q) else self.q
        q = torch.minimum(first(states), second(states)).float()
        if self.config.action_tokens is None:
            return q
        known = torch.full_like(q, torch.finfo(q.dtype).min)
        known[..., self.config.action_tokens] = q[..., self.config.action_tokens]
        return known

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits ``[B, T, V]`` of the policy, at the last ``logits_to_keep`` positions (0: all)."""
        if use_cache and cache is None:
            cache = DynamicCache(config=self.language_model.config)
        backbone = self.language_model.base_model
        output = backbone(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            use_cache=use_cache,
            **readable_inputs(backbone, kwargs),
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        states = output.last_hidden_state[:, kept]
        q = self.played_q(states) if self.extraction.kind == "advantage" else None
        logits = self._policy_logits(self.get_output_embeddings()(states), q)
        return CausalLMOutputWithPast(logits=logits, cache=cache)  # type: ignore[arg-type]

    def _policy_logits(self, logits: Tensor, q: Tensor | None) -> Tensor:
        """Of the language model's logits and, for ``advantage``, the Q-values."""
        if self.extraction.kind == "advantage":
            assert q is not None
            return self.extraction.advantage_logits(logits, q)
        return self.extraction.policy_logits(logits, None, None)

    @torch.no_grad()
    def read(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, logits_to_keep: int = 0, **images: Tensor
    ) -> Reading:
        """Every token's Q-value, prior and policy logit.

        What :meth:`QSFTPolicyModel.read <qsft.models.policy_model.QSFTPolicyModel.read>` reads off two models.
        """
        inputs = whole_inputs(self.inner, input_ids, attention_mask, **images)
        states = self.language_model.base_model(**inputs).last_hidden_state[:, -logits_to_keep:]
        q, logits = self.played_q(states), self.get_output_embeddings()(states)
        return Reading(q, torch.log_softmax(logits.float(), dim=-1), self._policy_logits(logits, q))


AutoConfig.register(ValueModelConfig.model_type, ValueModelConfig)
AutoModelForCausalLM.register(ValueModelConfig, ValueModel)


def load_value_model(path: str | os.PathLike[str], extraction: Extraction | None = None, **kwargs: Any) -> ValueModel:
    """``ValueModel.from_pretrained`` with a one-line error that says what is wrong with the checkpoint."""
    try:
        loaded: Any = ValueModel.from_pretrained(path, output_loading_info=True, **kwargs)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{path}: the value model cannot be loaded: {str(error).splitlines()[0]}") from error
    model, report = loaded
    wrong = sorted([*report["missing_keys"], *report["unexpected_keys"]])
    wrong = wrong or [key for key, *_ in report["mismatched_keys"]]
    if wrong:
        raise CheckpointError(f"{path}: {len(wrong)} weights are missing or misfit, the first is {wrong[0]!r}.")
    if extraction is not None:
        model.extraction = extraction
    return model.eval()
