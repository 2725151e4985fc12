"""A language model with value heads: its policy against the definition on unpadded sequences, its folder, its heads."""

import json
import math

import pytest
import torch
from transformers import AutoModelForCausalLM

from qsft.errors import CheckpointError, ConfigError
from qsft.models import Extraction, QSFTPolicyModel, ValueModel, load_value_model
from tests.models import naive, tiny

V, EOS, PAD = 13, 3, 0
PROMPTS = [[1, 4, 5, 6], [1, 7], [1, 4, 4, 9, 10, 3, 5]]
EXTRACTIONS = [
    Extraction("advantage", beta=3.0),
    Extraction("advantage", beta=8.0, eta=0.5, support=0.2),
    Extraction("product"),
]


def value_model(kind="gpt2", target_heads=True, **settings):
    """Heads of several units, the targets apart from their heads."""
    model = ValueModel.with_heads(tiny.make(kind, seed=1, **settings), V, target_heads, True).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for head in (*model.q, *model.target_q, model.v):
            for parameter in head.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return model


def definition(model, extraction):
    """``step(ids)``: log-probabilities of the next token by the formula, token by token, without a cache."""

    @torch.no_grad()
    def step(ids):
        pi = naive._probabilities(model.language_model, ids)
        state = model.language_model.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
        outputs = []
        for head in model.target_q if len(model.target_q) else model.q:
            hidden = (head.inner.weight @ state + head.inner.bias).clamp_min(0)
            outputs.append((head.outer.weight @ hidden + head.outer.bias).tolist())
        bar = extraction.support * max(pi)
        scores = []
        for a, probability in enumerate(pi):
            score = math.log(probability)
            if extraction.kind == "advantage":
                score = extraction.eta * score + extraction.beta * min(outputs[0][a], outputs[1][a])
            scores.append(score if probability >= bar else -math.inf)
        return torch.log_softmax(torch.tensor(scores, dtype=torch.float64), dim=0)

    return step


@pytest.mark.parametrize("kind", ["gpt2", "qwen3"])
@pytest.mark.parametrize("extraction", EXTRACTIONS, ids=str)
def test_cached_batched_greedy_play_is_the_definition(kind, extraction):
    model = value_model(kind)
    model.extraction = extraction
    width = max(map(len, PROMPTS))
    ids = torch.tensor([[PAD] * (width - len(prompt)) + prompt for prompt in PROMPTS])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in PROMPTS])
    settings = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": EOS, "pad_token_id": PAD}
    found = model.generate(input_ids=ids, attention_mask=mask, **settings)[:, width:].tolist()
    expected = naive.greedy(definition(model, extraction), PROMPTS, len(found[0]), EOS, PAD)
    assert found == expected


def test_beams_are_the_definitions():
    model = value_model(target_heads=False)
    model.extraction = EXTRACTIONS[0]
    ids = torch.tensor([PROMPTS[0]])
    settings = {"max_new_tokens": 4, "num_beams": 3, "do_sample": False, "length_penalty": 0.0, "eos_token_id": None}
    found = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), pad_token_id=PAD, **settings)
    assert found[0, ids.shape[1] :].tolist() == naive.beams(definition(model, EXTRACTIONS[0]), PROMPTS[0], 4, 3)


def test_what_logits_to_keep_keeps():
    model = value_model()
    ids = torch.tensor([PROMPTS[2]])
    whole = model(input_ids=ids).logits
    assert whole.shape == (1, 7, V)
    torch.testing.assert_close(model(input_ids=ids, logits_to_keep=2).logits, whole[:, -2:])
    torch.testing.assert_close(model(input_ids=ids, logits_to_keep=torch.tensor([1, 4])).logits, whole[:, [1, 4]])


@pytest.mark.parametrize("tied", [True, False])
def test_the_folder_brings_everything_back(tied, tmp_path):
    model = value_model(tie_word_embeddings=tied)
    model.extraction = EXTRACTIONS[1]
    model.save_pretrained(tmp_path)
    again = load_value_model(tmp_path)
    assert again.extraction == EXTRACTIONS[1]
    found = again.state_dict()
    assert all(torch.equal(found[name], value) for name, value in model.state_dict().items())
    head, embedding = again.get_output_embeddings().weight, again.get_input_embeddings().weight
    assert (head is embedding) == tied
    assert isinstance(AutoModelForCausalLM.from_pretrained(tmp_path), ValueModel)
    assert str(tmp_path) not in (tmp_path / "config.json").read_text()
    assert load_value_model(tmp_path, Extraction("product")).extraction == Extraction("product")


def test_a_damaged_folder_is_one_line(tmp_path):
    value_model().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "q_outputs": 20}))
    with pytest.raises(CheckpointError, match="misfit|cannot be loaded") as raised:
        load_value_model(tmp_path)
    assert "\n" not in str(raised.value)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 40)
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_value_model(tmp_path)


def test_extractions_that_it_or_others_cannot_do():
    model = value_model()
    for kind in ("value", "likelihood"):
        with pytest.raises(ConfigError, match="value heads and no likelihood model"):
            model.extraction = Extraction(kind)
    with pytest.raises(ConfigError, match="needs a run with Q heads"):
        QSFTPolicyModel.combine(tiny.make("gpt2"), None, dummy_token_id=None, extraction=Extraction("advantage"))


def test_targets_follow_the_heads_and_nothing_else_moves():
    model = value_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.update_target(0.25)
    for name, value in model.state_dict().items():
        if name.startswith("target_q."):
            torch.testing.assert_close(value, 0.75 * before[name] + 0.25 * before[name.removeprefix("target_")])
        else:
            assert torch.equal(value, before[name])
    assert not any(parameter.requires_grad for parameter in model.target_q.parameters())


def test_scaled_values_in_reward_units():
    model = value_model()
    model.config.return_range = (-6.0, -1.0)
    assert [model.config.value(q, turn) for q, turn in ((0.5, 0), (-0.3, 2), (1.4, 5))] == [-3.5, -6.0, -1.0]
