"""From a Hugging Face language model to what an objective needs: hidden states at agent positions, and the output head."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from qsft.data.batch import NO_ACTION
from qsft.errors import ConfigError

#: Keys of a TokenBatch that describe states; every other key is an input of the model (images, for instance).
STATE_KEYS = frozenset(
    {
        "state_positions",
        "state_rows",
        "actions",
        "state_mask",
        "turn_end",
        "rewards",
        "terminal",
        "turns",
        "returns_to_go",
        "support_ids",
        "support_logps",
    }
)


def unwrap_adapters(model: nn.Module) -> PreTrainedModel:
    """The transformers model inside a PEFT model (with its adapters injected), or the model itself."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    return inner  # type: ignore[return-value]


def max_positions(model: PreTrainedModel) -> int | None:
    """The longest text that a model reads, in tokens; ``None`` for one whose config names no limit."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def output_head(model: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Weight ``[V, H]`` and bias ``[V]`` (or ``None``) that turn a hidden state into logits."""
    head = unwrap_adapters(model).get_output_embeddings()
    if head is None or not hasattr(head, "weight"):
        raise ConfigError(f"{type(model).__name__} has no linear output embedding; use a causal language model.")
    return head.weight, getattr(head, "bias", None)  # type: ignore[return-value]


def readable_inputs(model: nn.Module, inputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs without token types that the model's forward pass does not name: some tokenizers make them anyhow."""
    known = inspect.signature(model.forward).parameters
    return {key: value for key, value in inputs.items() if key in known or not key.endswith("token_type_ids")}


def state_hidden(model: nn.Module, batch: dict[str, Any]) -> Tensor:
    """Hidden states ``[N, H]`` of the batch's N states, row by row, in one forward pass of the backbone.

    Logits are never computed at other positions, and none here at all. With images their tokens are among the
    positions, so that a state's index is the same in ids and in hidden states.
    """
    backbone = unwrap_adapters(model).base_model
    inputs = readable_inputs(backbone, {key: value for key, value in batch.items() if key not in STATE_KEYS})
    if inputs.keys() == {"input_ids", "attention_mask"}:
        # padding follows the text, where causal attention never looks, so any token can stand there: without a mask the
        # kernels skip the future, a quarter of a long row's time (images may be read in both directions; they keep it)
        ids, mask = inputs["input_ids"], inputs.pop("attention_mask")
        inputs["input_ids"] = torch.where(mask.bool(), ids, ids[:, :1])
    hidden = backbone(**inputs, use_cache=False).last_hidden_state
    rows = batch.get("state_rows")
    if rows is None:
        rows = torch.arange(len(hidden), device=hidden.device)[:, None]
    return hidden[rows, batch["state_positions"]][batch["state_mask"]]


@torch.no_grad()
def check_head(model: PreTrainedModel) -> None:
    """Raise :class:`ConfigError` unless hidden states through the output head are the model's logits.

    Some architectures scale or cap their logits after the head; losses computed from the head alone would silently
    train another model.
    """
    inner = unwrap_adapters(model)
    weight, bias = output_head(model)
    head = inner.get_output_embeddings()
    refusal = ConfigError(
        f"{type(inner).__name__} changes its logits after the output head (soft-capping, scaling, or an adapter on "
        "the head), which the chunked loss cannot see; switch that off in the model's config or choose another model."
    )
    table = inner.get_input_embeddings()
    if hasattr(table, "base_layer") and table.weight is weight:  # the head would read the tokens without the adapter
        raise ConfigError(
            "lora: an adapter on embeddings that are the output head too; take them out of target_modules."
        )
    if hasattr(head, "base_layer"):  # an adapter, zero at the start and so invisible below
        raise refusal
    seen: dict[str, Tensor] = {}

    def replace(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        seen["input"], seen["output"] = inputs[0], output
        # far beyond the logits of a fresh model, so that a cap shows as well as a scale
        seen["given"] = torch.linspace(-1000.0, 1000.0, output.numel(), device=output.device).to(output).view_as(output)
        return seen["given"]

    ids = torch.arange(1, 4, device=model.device)[None] % weight.shape[0]
    was_training = model.training
    model.eval()
    handle = head.register_forward_hook(replace)
    try:
        logits = model(input_ids=ids, use_cache=False).logits
    finally:
        handle.remove()
    hidden = inner.base_model(input_ids=ids, use_cache=False).last_hidden_state
    model.train(was_training)
    untouched = bool(seen) and logits.shape == seen["given"].shape and _close(logits, seen["given"])
    if not (
        untouched
        and _close(hidden, seen["input"])
        and _close(nn.functional.linear(hidden, weight, bias), seen["output"])
    ):
        raise refusal


def _close(found: Tensor, expected: Tensor) -> bool:
    """Equal up to the rounding of half precision."""
    scale = float(expected.abs().max().clamp_min(1e-6))
    return torch.allclose(found.float(), expected.float(), rtol=0, atol=2e-3 * scale)


def pick_dummy_token(tokenizer: Any, model_vocabulary: int, requested: int | str | None = None) -> int:
    """The id of a token that is never an agent's action, for the mass that Q-SFT takes away from bad actions.

    In order: the one asked for (an id or a token), the padding token where it is not the end of a turn, a row of the
    embedding beyond the tokenizer's, the unknown or beginning-of-sequence token.

    Raises:
        ConfigError: no such token, or the one asked for does not exist.
    """
    if requested is not None:
        # convert_tokens_to_ids would answer with the unknown token
        index = tokenizer.get_vocab().get(requested) if isinstance(requested, str) else int(requested)
        if index is None or not 0 <= index < model_vocabulary:
            raise ConfigError(
                f"dummy_token: {requested!r} is not in the vocabulary of {model_vocabulary} tokens; name another."
            )
        return index
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id != tokenizer.eos_token_id:
        return int(tokenizer.pad_token_id)
    if model_vocabulary > max(tokenizer.get_vocab().values()) + 1:
        return model_vocabulary - 1
    for index in (tokenizer.unk_token_id, tokenizer.bos_token_id):
        if index is not None and index != tokenizer.eos_token_id:
            return int(index)
    raise ConfigError(
        "dummy_token: the tokenizer has no token that is surely never an action (no padding token apart from the end "
        "of text, no unused embedding row); name one with dummy_token, for instance a reserved special token."
    )


def has_action(batch: dict[str, Tensor]) -> Tensor:
    """``[B, S]`` bool: states with a logged action."""
    return batch["actions"] != NO_ACTION
