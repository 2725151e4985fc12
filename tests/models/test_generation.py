"""What a model's replies may depend on."""

from __future__ import annotations

import pytest
import torch

from qsft.errors import ConfigError
from qsft.models.generation import check_padding
from qsft.models.scratch import model_from_config
from tests.models import tiny

NAMES = {"hidden_size": 32, "num_hidden_layers": 2}
#: settings of tiny models, most of which have no positions that a mask could say
KINDS = {
    "gpt2": {"n_layer": 2, "n_embd": 32, "n_head": 2},
    "qwen3": {**NAMES, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 64},
    "bloom": {"n_layer": 2, "hidden_size": 32, "n_head": 2},
    "mamba": NAMES,
    "mamba2": {**NAMES, "num_heads": 4, "head_dim": 16, "n_groups": 1},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_padding_that_is_not_looked_at(kind: str, dtype: torch.dtype) -> None:
    model = model_from_config({"model_type": kind, **KINDS[kind]}, tiny.tokenizer(), 0).to(dtype).train()
    check_padding(model)
    assert model.training


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("kind", "settings"),
    [("rwkv", {**NAMES, "attention_hidden_size": 32}), ("xlstm", {"hidden_size": 32, "num_blocks": 2, "num_heads": 2})],
)
def test_a_model_that_ignores_the_mask_is_refused(kind: str, settings: dict[str, int], dtype: torch.dtype) -> None:
    model = model_from_config({"model_type": kind, **settings}, tiny.tokenizer(), 0).to(dtype)
    with pytest.raises(ConfigError, match="ignores the attention mask"):
        check_padding(model)
