"""A transformer for robots in the manner of RT-1: short steps of observation tokens and autoregressive action tokens.

Source: Brohan et al., "RT-1: Robotics Transformer for Real-World Control at Scale", 2022 (arXiv 2212.06817), section 5:
a few learnt tokens an image, the last steps for a history, an action as one token a dimension. Here an action's tokens
are read off one after the other, and a whole episode is one row of tokens: which step a token belongs to follows from
the ends of turns, and attention reaches ``history`` steps back. So it is an ordinary causal language model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    GenerationMixin,
    LlamaConfig,
    LlamaModel,
    PreTrainedConfig,
    PreTrainedModel,
    initialization,
)
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from qsft.errors import ConfigError
from qsft.models.generation import ImageExpansion


class RobotTransformerConfig(PreTrainedConfig):
    """Sizes of a robot transformer; the defaults make about half a million weights without images.

    Args:
        vocab_size, pad_token_id, bos_token_id, eos_token_id: the tokenizer's. Every turn ends with the eos token and
            holds no other; an observation's and the action's turn are a step.
        hidden_size, intermediate_size, layers, heads: of the transformer, whose blocks are Llama's.
        history: steps that a token attends to, its own included. Each layer reaches as much further back: in all,
            ``layers * (history - 1) + 1`` steps.
        step_tokens: places in a step that are told apart; tokens after them share the last one's.
        image_token_id: stands ``image_tokens`` times for each image; ``None``: no images.
        image_tokens: tokens of an image.
        vision: config (a dict with ``model_type``) of a Hugging Face backbone that reads the images; ``None``: three
            convolutions.
    """

    model_type = "robot_transformer"

    def __init__(
        self,
        vocab_size: int = 512,
        hidden_size: int = 128,
        intermediate_size: int = 384,
        layers: int = 2,
        heads: int = 4,
        history: int = 1,
        step_tokens: int = 64,
        image_token_id: int | None = None,
        image_tokens: int = 8,
        vision: dict[str, Any] | None = None,
        initializer_range: float = 0.02,
        pad_token_id: int | None = None,
        bos_token_id: int | None = None,
        eos_token_id: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.layers = layers
        self.heads = heads
        self.history = history
        self.step_tokens = step_tokens
        self.image_token_id = image_token_id
        self.image_tokens = image_tokens
        self.vision = vision
        self.initializer_range = initializer_range
        kwargs.setdefault("tie_word_embeddings", False)
        super().__init__(**kwargs)
        self.pad_token_id, self.bos_token_id, self.eos_token_id = pad_token_id, bos_token_id, eos_token_id
        for name in ("layers", "heads", "history", "step_tokens", "image_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"robot_transformer: {name}: {getattr(self, name)}; give at least 1.")
        if vision is not None and not (isinstance(vision, dict) and isinstance(vision.get("model_type"), str)):
            raise ConfigError(
                f"robot_transformer: vision: {vision!r:.60}; give a backbone's config with its model_type, such as "
                "{model_type: resnet, out_features: [stage4]}."
            )
        if hidden_size % (2 * heads):
            raise ConfigError(
                f"robot_transformer: hidden_size {hidden_size} must be a multiple of 2 * heads ({heads})."
            )

    @property
    def num_hidden_layers(self) -> int:
        """Layers of a cache: the transformer's, and one that keeps the tokens themselves."""
        return self.layers + 1


class Places(nn.Embedding):
    """One row for each place in a step.

    Rows begin as large as those of numbered bins (:mod:`qsft.models.number_tokens`), or a fresh model would hear nothing
    but the bin: the same symbols stand for every dimension, and the place alone says which one is meant.
    """

    STD = 0.2


class _PreTrained(PreTrainedModel):
    config_class = RobotTransformerConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, Places):
            initialization.normal_(module.weight, std=Places.STD)
        elif isinstance(module, Windows):
            module.reset()
        elif isinstance(module, nn.Conv2d | _Features):  # else what is seen fades from layer to layer
            initialization.kaiming_normal_(module.weight, nonlinearity="linear")
            if module.bias is not None:
                initialization.zeros_(module.bias)
        else:
            super()._init_weights(module)


class ImageTokens(nn.Module):
    """A few tokens an image: learnt weighted means of a feature map, each looking elsewhere (TokenLearner, as in RT-1).

    Each token begins with a part of the picture of its own, a cell of a grid that all of them fill, and learns where to
    look and what for. The map's coordinates are features too, so that a token can say where something is.
    """

    def __init__(self, config: RobotTransformerConfig) -> None:
        super().__init__()
        width = config.hidden_size
        if config.vision is None:
            channels = width
            self.encoder: nn.Module = nn.Sequential(
                nn.Conv2d(3, width // 4, 8, stride=4, padding=2),
                nn.GroupNorm(1, width // 4),
                nn.GELU(),
                nn.Conv2d(width // 4, width // 2, 3, stride=2, padding=1),
                nn.GroupNorm(1, width // 2),
                nn.GELU(),
                nn.Conv2d(width // 2, width, 3, padding=1),
            )
        else:
            try:
                self.encoder = AutoBackbone.from_config(AutoConfig.for_model(**config.vision))
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigError(f"robot_transformer: vision: {' '.join(str(error).split()):.200}") from error
            channels = int(self.encoder.channels[-1])  # type: ignore[index, arg-type]
        self.norm = nn.GroupNorm(1, channels)
        self.attention = nn.Conv2d(channels + 2, config.image_tokens, 1)
        self.windows = Windows(config.image_tokens)
        self.features = _Features(channels + 2, width)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """``[N, 3, H, W]`` images to ``[N, image_tokens, d]``."""
        maps = self.encoder(pixel_values)
        if not isinstance(maps, Tensor):
            maps = maps.feature_maps[-1]
        maps = nn.functional.gelu(self.norm(maps))
        rows, columns = (torch.linspace(-1, 1, size, device=maps.device, dtype=maps.dtype) for size in maps.shape[2:])
        places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
        maps = torch.cat([maps, places.expand(len(maps), -1, -1, -1)], dim=1)
        weights = torch.softmax((self.attention(maps) + self.windows(places)).flatten(2), dim=-1)
        return self.features(weights @ maps.flatten(2).transpose(1, 2))


class Windows(nn.Module):
    """Where each of ``tokens`` tokens looks: a Gaussian's logarithm, at first one for each cell of a grid."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.empty(tokens, 2))
        self.log_precision = nn.Parameter(torch.empty(tokens))

    def reset(self) -> None:
        """The grid is as square as the number of tokens allows."""
        tokens = len(self.centres)
        rows = next(r for r in range(math.isqrt(tokens), 0, -1) if tokens % r == 0)
        ends = [(torch.arange(n) + 0.5) * (2 / n) - 1 for n in (rows, tokens // rows)]
        initialization.copy_(self.centres, torch.cartesian_prod(*ends))
        initialization.constant_(self.log_precision, math.log(max(tokens / 2, 1.0)))

    def forward(self, places: Tensor) -> Tensor:
        """``[2, h, w]`` coordinates in [-1, 1] to ``[tokens, h, w]``, added to what attention says."""
        apart = (places - self.centres[:, :, None, None]).square().sum(1)
        return -apart * self.log_precision.exp()[:, None, None]


class _Features(nn.Linear):
    """From the map's features to a token; begins as large as they are, not as small as a language model's matrices."""


@dataclass
class _Steps:
    """Where tokens ``[B, K]`` stand; one that begins a row is in no step and seen by none: play may cut a history anywhere.

    Attributes:
        number: of the token's step in its row.
        place: of the token in its step.
        inside: whether it is in a step.
    """

    number: Tensor
    place: Tensor
    inside: Tensor

    def visible(self, history: int, past: int) -> Tensor:
        """``[B, K - past, K]``, which tokens those after the first ``past`` see."""
        index = torch.arange(self.number.shape[1], device=self.number.device)
        new = index[past:, None]
        ago = self.number[:, past:, None] - self.number[:, None]
        seen = self.inside[:, None] & (ago >= 0) & (ago < history) & (new >= index)
        return seen | (new == index)


class RobotTransformerModel(_PreTrained):
    """Hidden states of every token; the transformer itself is :class:`transformers.LlamaModel`."""

    def __init__(self, config: RobotTransformerConfig) -> None:
        super().__init__(config)
        if config.eos_token_id is None:
            raise ConfigError(
                "robot_transformer: eos_token_id: is missing; the model tells steps by the ends of turns."
            )
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.places = Places(config.step_tokens, config.hidden_size)
        self.vision = None if config.image_token_id is None else ImageTokens(config)
        blocks = LlamaConfig(
            vocab_size=1,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            initializer_range=config.initializer_range,
            pad_token_id=None,
            bos_token_id=None,
            eos_token_id=None,
        )
        blocks._attn_implementation = "sdpa"  # the mask below is one of bools
        self.blocks = LlamaModel(blocks)
        self.blocks.embed_tokens = None  # type: ignore[assignment]
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.embed_tokens = value  # type: ignore[assignment]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Hidden states ``[B, T, d]``.

        Args:
            input_ids: ``[B, T]``; an image's place holds ``image_tokens`` image tokens.
            attention_mask: ``[B, P + T]``, 0 for padding, with P tokens in the cache.
            pixel_values: ``[N, 3, H, W]``, the images of the batch's rows in order; not read where no token is an
                image's.
            position_ids: not read; they follow from the attention mask, which may have padding anywhere.
            cache: the cache.
            kwargs: not read.

        Raises:
            ConfigError: images and image tokens do not match.
        """
        if use_cache and cache is None:
            cache = DynamicCache(config=self.config)
        past, seen = 0, input_ids
        if cache is not None:
            past = cache.get_seq_length()
            marks = input_ids[:, None, :, None]
            seen = cache.update(marks, marks, self.config.layers)[0][:, 0, :, 0]
        real = torch.ones_like(seen, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        steps = self._steps(seen, real)
        # a picture stands in a prompt; who draws its token behind one, as sampling may, reads it as any other
        embedded = (
            self.embed_tokens(input_ids) if past and pixel_values is None else self._embedded(input_ids, pixel_values)
        )
        embedded = embedded + self.places(steps.place.clamp(0, self.config.step_tokens - 1)[:, past:])
        if cache is None and self.config.history == 1:
            return BaseModelOutputWithPast(last_hidden_state=self._step_by_step(embedded, steps))
        output = self.blocks(
            inputs_embeds=embedded,
            attention_mask=steps.visible(self.config.history, past)[:, None],
            position_ids=(real.long().cumsum(1) - 1).clamp_min(0)[:, past:],
            cache=cache,
            use_cache=bool(use_cache),
        )
        return BaseModelOutputWithPast(last_hidden_state=output.last_hidden_state, cache=cache)

    def _steps(self, ids: Tensor, real: Tensor) -> _Steps:
        inside = real if self.config.bos_token_id is None else real & (ids != self.config.bos_token_id)
        ends = (real & (ids == self.config.eos_token_id)).long()  # padding may be the same token
        number = (ends.cumsum(1) - ends) // 2
        count = inside.long().cumsum(1)
        begins = torch.zeros_like(number, dtype=torch.bool)
        begins[:, 1:] = number[:, 1:] > number[:, :-1]
        before = torch.where(begins, count - inside.long(), 0).cummax(1).values  # what begins may be padding
        return _Steps(number, count - 1 - before, inside)

    def _step_by_step(self, embedded: Tensor, steps: _Steps) -> Tensor:
        """What :meth:`forward` gives where a token sees its own step alone: steps are rows of a batch of their own.

        An episode of 30 steps attends to a thirtieth as much.
        """
        hidden = torch.empty_like(embedded)
        inside, place = steps.inside, steps.place[steps.inside]
        episode = torch.arange(len(embedded), device=embedded.device)[:, None] * (steps.number.max() + 1)
        rows, row = (episode + steps.number)[inside].unique(return_inverse=True)
        packed = embedded.new_zeros(len(rows), int(place.max()) + 1 if len(place) else 1, embedded.shape[-1])
        packed[row, place] = embedded[inside]  # what is empty comes after the step, where causal attention never looks
        if len(rows):
            hidden[inside] = self.blocks(inputs_embeds=packed, use_cache=False).last_hidden_state[row, place]
        if not inside.all():
            alone = self.blocks(inputs_embeds=embedded[~inside][:, None], use_cache=False)
            hidden[~inside] = alone.last_hidden_state[:, 0]
        return hidden

    def _embedded(self, ids: Tensor, pixel_values: Tensor | None) -> Tensor:
        embedded = self.embed_tokens(ids)
        if self.vision is None:
            if pixel_values is not None:
                raise ConfigError(
                    "images: the robot transformer was made without them; set image_token_id in its config."
                )
            return embedded
        wanted = ids == self.config.image_token_id
        if not wanted.any():  # the images of a row stand before what is generated
            return embedded
        if pixel_values is None or wanted.sum() != len(pixel_values) * self.config.image_tokens:
            found = 0 if pixel_values is None else len(pixel_values)
            raise ConfigError(
                f"images: {found} of them for {int(wanted.sum())} image tokens; give {self.config.image_tokens} tokens "
                "an image."
            )
        tokens = self.vision(pixel_values.to(embedded.dtype)).flatten(0, 1)
        return embedded.masked_scatter(wanted[..., None], tokens.to(embedded.dtype))


class RobotTransformerForCausalLM(_PreTrained, ImageExpansion, GenerationMixin):
    """The robot transformer with its output head: next tokens of actions."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: RobotTransformerConfig) -> None:
        super().__init__(config)
        self.model = RobotTransformerModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.model.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.embed_tokens = value

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.lm_head = new_embeddings

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits ``[B, T, V]``, at the last ``logits_to_keep`` positions (0: all); see :class:`RobotTransformerModel`.

        With ``labels`` ``[B, T]`` (-100: none) also the mean cross-entropy of each token given those before.
        """
        output = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            pixel_values=pixel_values,
            cache=cache,
            use_cache=use_cache,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(output.last_hidden_state[:, kept])
        loss = None if labels is None else self.loss_function(logits, labels, self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(loss=loss, logits=logits, cache=output.cache)


AutoConfig.register(RobotTransformerConfig.model_type, RobotTransformerConfig)
AutoModel.register(RobotTransformerConfig, RobotTransformerModel)
AutoModelForCausalLM.register(RobotTransformerConfig, RobotTransformerForCausalLM)
AutoModelForImageTextToText.register(RobotTransformerConfig, RobotTransformerForCausalLM)
