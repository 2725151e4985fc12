"""New tokens start as the mean of the old ones, in tied and untied models, grown or not."""

import pytest
import torch

from qsft.models.new_tokens import start_token_rows
from tests.models import tiny


@pytest.mark.parametrize(
    ("kind", "rows", "tied"), [("gpt2", 13, True), ("llama", 13, False), ("llama", 20, False), ("qwen2", 13, True)]
)
def test_rows(kind, rows, tied):
    model = tiny.make(kind, vocab_size=rows, tie_word_embeddings=tied)
    old = {name: p.clone() for name, p in model.named_parameters()}
    ids = torch.tensor([[1, 4, 5, 3]])
    before = model(ids).logits
    start_token_rows(model, [13, 14, 15])
    assert model.config.vocab_size == max(rows, 16)
    for part in (model.get_input_embeddings(), model.get_output_embeddings()):
        assert part.weight.shape[0] == max(rows, 16)
        for row in (13, 14, 15):
            torch.testing.assert_close(part.weight[row], part.weight[:13].mean(dim=0))
    for name, p in model.named_parameters():
        assert torch.equal(p[:13], old[name][:13]) if p.shape != old[name].shape else p.requires_grad
        if "embed" not in name and "wte" not in name and "lm_head" not in name:
            assert torch.equal(p, old[name])
    torch.testing.assert_close(model(ids).logits[..., :13], before[..., :13])
    tied_now = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert tied_now == tied
