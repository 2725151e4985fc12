"""Models and tokenizers made here, for games whose language no pretrained model speaks."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    set_seed,
)

from qsft.errors import CheckpointError, ConfigError
from qsft.models.policy_model import load_causal_lm

PAD, BOS, UNKNOWN = "<pad>", "<bos>", "<unk>"


def word_level_tokenizer(symbols: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer with one token a symbol; symbols stand between spaces, and a newline is a symbol of its own.

    A symbol may hold spaces itself (``"c r a n e"``, a whole action as one token). Text made of the symbols survives
    encoding and decoding exactly, as long as they are separated by single spaces with none beside a newline.
    """
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys([PAD, BOS, UNKNOWN, "\n", *symbols]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    phrases = sorted((re.escape(symbol) for symbol in vocabulary if " " in symbol), key=len, reverse=True)
    pattern = "|".join([*phrases, "\n", "[^ \n]+"])
    # what matches is a token, what does not (single spaces) goes
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)  # type: ignore[assignment]
    tokenizer.decoder = decoders.Sequence(  # type: ignore[assignment]
        [
            decoders.WordPiece(prefix="##", cleanup=False),
            decoders.Fuse(),
            decoders.Replace(" \n", "\n"),
            decoders.Replace("\n ", "\n"),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        unk_token=UNKNOWN,
        eos_token="\n",
        clean_up_tokenization_spaces=False,
    )


def load_tokenizer(path: str | Path) -> Any:
    """``AutoTokenizer.from_pretrained`` with a one-line error."""
    try:
        return AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"{path}: no tokenizer can be loaded from there ({reason}); give another path."
        ) from error


def model_from_config(settings: dict[str, Any] | str | Path, tokenizer: Any, seed: int) -> PreTrainedModel:
    """A randomly initialised causal LM.

    Args:
        settings: ``{"model_type": "gpt2", "n_layer": 2, ...}`` or the path of such a JSON file. The vocabulary size and
            the special tokens are the tokenizer's unless given.
        tokenizer: whose vocabulary it speaks.
        seed: of the weights.

    Raises:
        ConfigError: an unreadable file, an unknown model type, or a setting of the wrong kind.
    """
    if isinstance(settings, (str, Path)):
        try:
            settings = json.loads(Path(settings).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"model: {settings}: cannot be read as JSON ({error}); give a model's config.") from error
    if not isinstance(settings, dict):
        raise ConfigError('model: a config is an object of settings, such as {"model_type": "gpt2"}.')
    values = dict(settings)
    kind = values.pop("model_type", None)
    if kind is None:
        raise ConfigError("model: a config needs model_type, for instance 'gpt2', 'llama' or 'qwen3'.")
    values.setdefault("vocab_size", len(tokenizer))
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        values.setdefault(name, getattr(tokenizer, name))
    try:
        config = AutoConfig.for_model(kind, **values)
    except ValueError as error:
        raise ConfigError(f"model: model_type {kind!r} is unknown to transformers; try 'gpt2' or 'qwen3'.") from error
    except StrictDataclassError as error:
        raise ConfigError(f"model: {' '.join(str(error).split())}.") from error
    set_seed(seed)
    try:
        return AutoModelForCausalLM.from_config(config)
    except ValueError as error:  # sizes that contradict each other, or a type without a language model
        raise ConfigError(f"model: {str(error).splitlines()[0]}") from error


def load_or_make_model(model: str | dict[str, Any] | PreTrainedModel, tokenizer: Any, seed: int) -> PreTrainedModel:
    """A model by hub id or local checkpoint (pretrained weights), or from a config (random weights)."""
    if isinstance(model, PreTrainedModel):
        return model
    if isinstance(model, dict) or str(model).endswith(".json"):
        return model_from_config(model, tokenizer, seed)
    return load_causal_lm(model)
