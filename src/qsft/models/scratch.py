"""Models and tokenizers made here, for games whose language no pretrained model speaks."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CONFIG_MAPPING,
    AutoBackbone,
    AutoConfig,
    AutoProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    set_seed,
)

from qsft.data.images import tokenizer_of
from qsft.errors import CheckpointError, ConfigError
from qsft.models.number_tokens import number_tokens
from qsft.models.policy_model import auto_model, load_causal_lm
from qsft.models.robot_transformer import RobotTransformerConfig

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


def bpe_tokenizer(texts: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer, as GPT-2's, trained on texts: it spells any text, and their words in few tokens.

    Args:
        texts: what it learns its merges from.
        size: of the vocabulary at most, the 256 bytes and two special tokens included.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[PAD, BOS], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, bos_token=BOS, clean_up_tokenization_spaces=False
    )


def llava_processor(tokenizer: PreTrainedTokenizerBase, image_size: int, patch_size: int) -> Any:
    """A processor for a LLaVA model with a CLIP vision tower: a token for each patch of an image.

    Args:
        tokenizer: gets the special token ``<image>``.
        image_size: side of the square that the middle of an image is resized to, in pixels.
        patch_size: side of a patch in pixels; as ``image_size``, the vision tower's.
    """
    from transformers import CLIPImageProcessorPil, LlavaProcessor

    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    side = {"height": image_size, "width": image_size}
    return LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": image_size}, crop_size=side),
        tokenizer,
        patch_size=patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


#: settings that every config knows, and those that are ours
_OF_ALL_CONFIGS = (
    "model_type", "attn_implementation", "dtype", "torch_dtype", "vocab_size", "pad_token_id", "bos_token_id",
    "eos_token_id", "tie_word_embeddings", "spelled_tokens", "numbered_tokens", "architectures",
)  # fmt: skip


def load_tokenizer(path: str | Path) -> Any:
    """The tokenizer alone; see :func:`load_processor`."""
    return tokenizer_of(load_processor(path))


def load_processor(path: str | Path) -> Any:
    """The processor of a vision-language model, or the tokenizer of another, with a one-line error."""
    try:
        return AutoProcessor.from_pretrained(path)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"{path}: no tokenizer can be loaded from there ({reason}); give another path."
        ) from error
    except ImportError as error:  # torchvision, for some
        raise ConfigError(f"{path}: its processor needs another package: {' '.join(str(error).split())}") from error


def _check_names(config: Any, settings: dict[str, Any], where: str = "model") -> None:
    """That a config's class knows the settings' names: transformers keeps others and lets them do nothing."""
    known = {*type(config)().to_dict(), *type(config).attribute_map, *_OF_ALL_CONFIGS}
    for name, value in settings.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 3)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise ConfigError(f"{where}: {type(config).__name__} has no setting {name!r}{hint}")
        if name in config.sub_configs and isinstance(value, dict):
            _check_names(getattr(config, name), value, f"{where}: {name}")


def _check_backbone(settings: dict[str, Any]) -> None:
    values = dict(settings)
    kind = values.pop("model_type")
    try:
        config = AutoConfig.for_model(kind, **values)
    except (ValueError, TypeError, StrictDataclassError) as error:
        raise ConfigError(f"model: vision: {' '.join(str(error).split()):.200}") from error
    _check_names(config, values, "model: vision")


def _pretrained_backbone(settings: dict[str, Any]) -> PreTrainedModel | None:
    """The backbone that a robot transformer's ``vision`` names by hub id or path."""
    name = settings.get("vision")
    if settings.get("model_type") != "robot_transformer" or not isinstance(name, str):
        return None
    try:  # not AutoBackbone.from_pretrained, which knows no folders
        config = AutoConfig.from_pretrained(name)
        return type(AutoBackbone.from_config(config)).from_pretrained(name, config=config)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"model: vision: {name}: no backbone can be loaded from there ({' '.join(str(error).split()):.120}); give a "
            "hub id or folder, or a backbone's config with its model_type for random weights."
        ) from error


def model_from_config(settings: dict[str, Any] | str | Path, tokenizer: Any, seed: int) -> PreTrainedModel:
    """A randomly initialised causal LM, or vision-language model.

    Args:
        settings: ``{"model_type": "gpt2", "n_layer": 2, ...}`` or the path of such a JSON file. The vocabulary size and
            the special tokens are the tokenizer's unless given. ``spelled_tokens`` is ours: the standard deviation of
            embeddings that know how whole-action tokens are spelt, see :func:`spell_tokens`. So is ``numbered_tokens``,
            see :func:`qsft.models.number_tokens.number_tokens`. A robot transformer's ``vision`` may also be the hub id
            or folder of a backbone, whose pretrained weights it then begins with. Of a vision-language model,
            vocabulary and special tokens belong into ``text_config``.
        tokenizer: whose vocabulary it speaks; of a vision-language model the processor, which also says which token
            stands for an image.
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
    backbone = _pretrained_backbone(settings)
    if backbone is not None:
        settings = {**settings, "vision": backbone.config.to_dict()}
    values = dict(settings)
    kind = values.pop("model_type", None)
    if kind is None:
        raise ConfigError("model: a config needs model_type, for instance 'gpt2', 'llama' or 'qwen3'.")
    spelled, numbered = values.pop("spelled_tokens", None), values.pop("numbered_tokens", None)
    processor, tokenizer = tokenizer, tokenizer_of(tokenizer)
    seeing = kind in CONFIG_MAPPING and "text_config" in CONFIG_MAPPING[kind].sub_configs
    spoken = dict(values.get("text_config") or {}) if seeing else values
    spoken.setdefault("vocab_size", len(tokenizer))
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        spoken.setdefault(name, getattr(tokenizer, name))
    if seeing:
        values["text_config"] = spoken
    try:
        config = AutoConfig.for_model(kind, **values)
        if processor is not tokenizer and settings.keys().isdisjoint(("image_token_id", "image_token_index")):
            config.image_token_id = processor.image_token_id
    except ConfigError:  # of a config of ours, and a ValueError too
        raise
    except ValueError as error:
        raise ConfigError(f"model: model_type {kind!r} is unknown to transformers; try 'gpt2' or 'qwen3'.") from error
    except StrictDataclassError as error:
        raise ConfigError(f"model: {' '.join(str(error).split())}.") from error
    _check_names(config, settings)
    if isinstance(config, RobotTransformerConfig) and config.vision is not None and backbone is None:
        _check_backbone(config.vision)
    set_seed(seed)
    try:
        model = auto_model(config).from_config(config)
    except ValueError as error:  # sizes that contradict each other, or a type without a language model
        raise ConfigError(f"model: {str(error).splitlines()[0]}") from error
    if backbone is not None:
        model.model.vision.encoder.load_state_dict(backbone.state_dict())  # type: ignore[union-attr]
    if spelled is not None:
        spell_tokens(model, tokenizer, float(spelled))
    if numbered is not None:
        number_tokens(model, tokenizer, float(numbered))
    return model


@torch.no_grad()
def spell_tokens(model: PreTrainedModel, tokenizer: Any, std: float) -> None:
    """Give tokens that stand for several symbols (``"c r a n e"``) embeddings that are sums over their symbols.

    A token of its own for every action starts out knowing nothing of its spelling, and what is learnt about one word
    says nothing about another. Here words with a symbol in common, at a place or anywhere, start out alike, as they are
    in a pretrained model; rows of the input embedding and of the output head are set alike. The codes of the symbols
    come from torch's global generator.

    Args:
        model: a fresh model.
        tokenizer: of :func:`word_level_tokenizer` with whole actions.
        std: standard deviation of the rows' entries.

    Raises:
        ConfigError: no token of the tokenizer stands for several symbols.
    """
    tables: list[torch.Tensor] = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]  # type: ignore
    codes: dict[Any, torch.Tensor] = defaultdict(lambda: torch.randn(tables[0].shape[1]))
    spelled = {token: i for token, i in tokenizer.get_vocab().items() if " " in token}
    if not spelled:
        raise ConfigError("spelled_tokens: no token stands for several symbols; set whole_actions for the tokenizer.")
    for token, i in sorted(spelled.items()):
        symbols = token.split(" ")
        parts = [codes[part] for part in [*enumerate(symbols), *sorted(set(symbols))]]
        row = torch.stack(parts).sum(0) * (std / math.sqrt(len(parts)))
        for table in tables:
            table[i] = row


def load_or_make_model(model: str | dict[str, Any] | PreTrainedModel, tokenizer: Any, seed: int) -> PreTrainedModel:
    """A model by hub id or local checkpoint (pretrained weights), or from a config (random weights)."""
    if isinstance(model, PreTrainedModel):
        return model
    if isinstance(model, dict) or str(model).endswith(".json"):
        return model_from_config(model, tokenizer, seed)
    return load_causal_lm(model)
