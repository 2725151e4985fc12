"""Tiny models of several architectures, and trajectories of a made-up text game, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from transformers import PreTrainedModel

from qsft.data import Trajectory, TrajectoryTokenizer, Turn, tokenize_file
from qsft.models.scratch import model_from_config, word_level_tokenizer

LETTERS = list("abcdefgh")
SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
    | dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
    "llama": {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
    },
}
SIZES["qwen3"] = {**SIZES["llama"], "head_dim": 8}
SIZES["gemma2"] = {**SIZES["llama"], "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 8}
SIZES["granite"] = SIZES["cohere"] = SIZES["qwen2"] = SIZES["llama"]


def tokenizer() -> Any:
    """13 symbols: ``<pad> <bos> <unk> newline a..h go``."""
    return word_level_tokenizer([*LETTERS, "go"])


def make(kind: str, seed: int = 0, **settings: Any) -> PreTrainedModel:
    """A model with logits of several nats, in evaluation mode."""
    model = model_from_config({"model_type": kind, **SIZES[kind], **settings}, tokenizer(), seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval()


def trajectories(count: int, seed: int = 0, max_turns: int = 4) -> list[Trajectory]:
    """Episodes of 1 to ``max_turns`` agent turns of 1 to 3 letters.

    A third each: terminated, truncated after an observation (bootstrapped), truncated after the agent's own turn.
    """
    rng = np.random.default_rng(seed)
    episodes = []
    for i in range(count):
        turns = []
        for _ in range(int(rng.integers(1, max_turns + 1))):
            turns.append(Turn("user", _text(rng, 1, 4)))
            turns.append(Turn("assistant", _text(rng, 1, 3), float(np.round(rng.uniform(-1, 1), 2))))
        if i % 3 == 1:
            turns.append(Turn("user", _text(rng, 1, 4)))
        episodes.append(Trajectory(turns, "terminated" if i % 3 == 0 else "truncated"))
    return episodes


def _text(rng: np.random.Generator, low: int, high: int) -> str:
    return " ".join(rng.choice(LETTERS, int(rng.integers(low, high + 1)))) + "\n"


def dataset(folder: Path, episodes: list[Trajectory]) -> datasets.Dataset:
    return tokenize_file(episodes, TrajectoryTokenizer(tokenizer()), folder)
