"""`generate` for a model whose forward pass is another's with other logits on top."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, GenerationMixin, PreTrainedModel

from qsft.errors import ConfigError

#: Inputs of a model that have one entry for each row of the batch; all others are those of images.
_OF_ROWS = ("attention_mask", "position_ids", "token_type_ids", "mm_token_type_ids")


class ImageExpansion(GenerationMixin):
    """Beams, and several replies to a prompt, of rows with images: a row's images are repeated as a whole."""

    def _expand_inputs_for_generation(
        self, expand_size: int = 1, is_encoder_decoder: bool = False, input_ids: Any = None, **kwargs: Any
    ) -> tuple[Any, dict[str, Any]]:
        """Repeats each row; the images of the one row that can have some are repeated as a whole."""
        images = {key: value for key, value in kwargs.items() if torch.is_tensor(value) and key not in _OF_ROWS}
        if images and expand_size > 1 and input_ids is not None and len(input_ids) > 1:
            raise ConfigError("beam search with images takes one row at a time; generate for each alone.")
        rest = {key: value for key, value in kwargs.items() if key not in images}
        ids, rest = super()._expand_inputs_for_generation(  # type: ignore[misc]
            expand_size, is_encoder_decoder, input_ids, **rest
        )
        repeated = {key: value.repeat(expand_size, *[1] * (value.dim() - 1)) for key, value in images.items()}
        return ids, {**rest, **repeated}


def ends_of(model: PreTrainedModel) -> GenerationConfig:
    """Where a model's own generation ends and how it pads, which a checkpoint says beside its config; not how it samples."""
    own = model.generation_config if model.can_generate() else GenerationConfig.from_model_config(model.config)
    return GenerationConfig(bos_token_id=own.bos_token_id, eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id)


def whole_inputs(model: Any, input_ids: Tensor, attention_mask: Tensor | None, **images: Tensor) -> dict[str, Any]:
    """What a language model reads to see a padded batch at once, without a cache."""
    inputs = {"attention_mask": attention_mask, **images}
    positions = model._prepare_position_ids_for_generation(input_ids, inputs)
    prepared = model.prepare_inputs_for_generation(input_ids, position_ids=positions, is_first_iteration=True, **inputs)
    return {**prepared, "use_cache": False}


@torch.no_grad()
def check_padding(model: PreTrainedModel) -> None:
    """Raise :class:`ConfigError` where what a model says depends on the padding before a text.

    Some recurrent architectures (RWKV, xLSTM) take an attention mask and do not look at it: their replies to a history
    would depend on the others that are played beside it.
    """
    padded = torch.tensor([[3, 2, 1, 1, 2, 3]], device=model.device) % model.config.get_text_config().vocab_size
    mask = torch.tensor([[0, 0, 0, 1, 1, 1]], device=model.device)
    was_training = model.training
    model.eval()
    alone, behind = (
        model(**whole_inputs(model, ids, seen)).logits[:, -1].float()
        for ids, seen in ((padded[:, 3:], mask[:, 3:]), (padded, mask))
    )
    model.train(was_training)
    # far above rounding in half precision, far below what other words do
    if not torch.allclose(alone, behind, rtol=0, atol=0.02 * float(alone.abs().max())):
        raise ConfigError(
            f"{type(model).__name__} ignores the attention mask, so padding would change what it says; choose another model."
        )


class InnerGeneration(ImageExpansion):
    """Inputs are prepared as the inner language model prepares its own: positions, token types, images.

    With a cache, images are read once, with the prompt.
    """

    @property
    def inner(self) -> Any:
        """The language model whose inputs are read."""
        raise NotImplementedError

    def prepare_inputs_for_generation(self, input_ids: Tensor, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return self.inner.prepare_inputs_for_generation(input_ids, *args, **kwargs)

    def _prepare_position_ids_for_generation(self, inputs_tensor: Tensor, model_kwargs: dict[str, Any]) -> Tensor:
        return self.inner._prepare_position_ids_for_generation(inputs_tensor, model_kwargs)

    def _update_model_kwargs_for_generation(
        self, outputs: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        return self.inner._update_model_kwargs_for_generation(outputs, model_kwargs, *args, **kwargs)

    def _validate_model_kwargs(self, model_kwargs: dict[str, Any]) -> None:
        self.inner._validate_model_kwargs(model_kwargs)

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        # generate() must not make a cache sized for the outer model: forward makes the right one
        return False
