"""Tiny vision-language models of the families in use, their processors, and episodes with pictures, all built here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Idefics3Processor,
    LlavaProcessor,
    PaliGemmaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLProcessor,
    Qwen3VLProcessor,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from qsft.data import Trajectory, Turn
from qsft.models.scratch import model_from_config

CHAT = """{%- for m in messages -%}<|im_start|>{{ m.role }}
{% for part in m.content -%}
{%- if part.type == 'image' -%}IMAGE{%- else -%}{{ part.text }}{%- endif -%}
{%- endfor -%}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}"""
TEXT = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT |= {"num_key_value_heads": 2, "max_position_embeddings": 256}
SEES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
FAMILIES = ("llava", "idefics3", "paligemma", "qwen2_5_vl", "qwen3_vl")
WORDS = ("left", "right", "up", "down")


class _NoVideo:
    """The processor of videos needs torchvision, and no video is shown here."""

    def check_argument_for_proper_class(self, name: str, argument: Any) -> type:
        return type(argument)


class _Qwen2_5(_NoVideo, Qwen2_5_VLProcessor):
    pass


class _Qwen3(_NoVideo, Qwen3VLProcessor):
    pass


def byte_tokenizer(*special: str, bos: str | None = None, template: str | None = None) -> PreTrainedTokenizerFast:
    """One token a byte, and special ones; pad, eos and the chat's marks always."""
    special = ("<pad>", "<|im_start|>", "<|im_end|>", "<eos>", *([bos] if bos else []), *special)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate([*special, *letters])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token=bos,
        chat_template=template,
        model_input_names=["input_ids", "attention_mask"],
    )


def processor(family: str) -> Any:
    """As transformers has it, with images of a few tokens."""
    if family == "llava":
        return LlavaProcessor(
            CLIPImageProcessorPil(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8}),
            byte_tokenizer("<image>"),
            patch_size=4,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
            chat_template=CHAT.replace("IMAGE", "<image>"),
        )
    if family == "idefics3":
        rows = [f"<row_{i + 1}_col_{j + 1}>" for i in range(6) for j in range(6)]
        return Idefics3Processor(
            Idefics3ImageProcessorPil(size={"longest_edge": 16}, max_image_size={"longest_edge": 8}),
            byte_tokenizer("<image>", "<fake_token_around_image>", "<global-img>", *rows),
            image_seq_len=1,
            chat_template=CHAT.replace("IMAGE", "<image>"),
        )
    if family == "paligemma":
        images = SiglipImageProcessorPil(size={"height": 8, "width": 8})
        images.image_seq_length = 4
        return PaliGemmaProcessor(images, byte_tokenizer("<image>", bos="<bos>"))
    kind = {"qwen2_5_vl": _Qwen2_5, "qwen3_vl": _Qwen3}[family]
    tokens = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>")
    return kind(
        Qwen2VLImageProcessorPil(
            patch_size=4, merge_size=2, size={"shortest_edge": 64, "longest_edge": 256}, temporal_patch_size=2
        ),
        byte_tokenizer(*tokens),
        None,
        chat_template=CHAT.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>"),
    )


def config(family: str) -> dict[str, Any]:
    """Settings of a tiny model; what the tokenizer decides is left to it."""
    patches = {**SEES, "image_size": 8, "patch_size": 4}
    if family == "llava":
        return {
            "model_type": "llava",
            "text_config": {**TEXT, "model_type": "llama"},
            "vision_config": {**patches, "model_type": "clip_vision_model", "projection_dim": 16},
            "vision_feature_layer": -1,
        }
    if family == "idefics3":
        return {
            "model_type": "idefics3",
            "text_config": {**TEXT, "model_type": "llama"},
            "vision_config": patches,
            "scale_factor": 2,
        }
    if family == "paligemma":
        return {
            "model_type": "paligemma",
            "text_config": {**TEXT, "model_type": "gemma", "head_dim": 4},
            "vision_config": {**patches, "model_type": "siglip_vision_model", "vision_use_head": False},
            "projection_dim": 16,
        }
    sight = {"hidden_size": 16, "depth": 2, "num_heads": 2, "intermediate_size": 24, "out_hidden_size": 16}
    sight |= {"patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2}
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 0]}
    text = {**TEXT, "rope_parameters": rope}
    if family == "qwen2_5_vl":
        sight |= {"window_size": 16, "fullatt_block_indexes": [1]}
        return {"model_type": family, "text_config": text, "vision_config": sight}
    sight |= {"num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    return {"model_type": family, "text_config": {**text, "head_dim": 4}, "vision_config": sight}


def make(family: str, seed: int = 0) -> PreTrainedModel:
    """A model with logits of several nats, in evaluation mode."""
    model = model_from_config(config(family), processor(family), seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


def picture(seed: int, height: int = 8, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def save(folder: Path, name: str, seed: int, height: int = 8, width: int = 8) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed, height, width)).save(folder / name)
    return str(folder / name)


def episodes(folder: Path, count: int, sizes: Sequence[tuple[int, int]] = ((8, 8), (16, 12))) -> list[Trajectory]:
    """Episodes of one to three turns of the agent: a picture in most of the environment's, two in some, none in some.

    A third each: terminated, truncated after an observation, truncated after the agent's own turn.
    """
    rng = np.random.default_rng(count)
    made = []
    for i in range(count):
        turns = []
        for step in range(1 + i % 3):
            turns.append(observation(folder, rng, f"{i}-{step}", sizes))
            turns.append(Turn("assistant", f"{rng.choice(WORDS)}\n", float(np.round(rng.uniform(-1, 1), 2))))
        if i % 3 == 1:
            turns.append(observation(folder, rng, f"{i}-last", sizes))
        made.append(Trajectory(turns, "terminated" if i % 3 == 0 else "truncated"))
    return made


def observation(folder: Path, rng: np.random.Generator, name: str, sizes: Sequence[tuple[int, int]]) -> Turn:
    paths = []
    for k in range(int(rng.choice([0, 1, 1, 2]))):
        size = sizes[int(rng.integers(len(sizes)))]
        paths.append(save(folder, f"{name}-{k}.png", int(rng.integers(1 << 30)), *size))
    return Turn("user", f"{rng.choice(WORDS)}?\n", images=tuple(paths))
