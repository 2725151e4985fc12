"""What an objective reads off a model equals the model's own logits."""

import pytest
import torch

from qsft.data import TrajectoryCollator
from qsft.errors import ConfigError
from qsft.models import check_head, output_head, pick_dummy_token, state_hidden
from tests.models import tiny


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen3"])
def test_hidden_states_through_the_head_are_the_logits(kind, tmp_path):
    model = tiny.make(kind)
    rows = list(tiny.dataset(tmp_path, tiny.trajectories(7)))
    batch = TrajectoryCollator(0)(rows)
    weight, bias = output_head(model)
    hidden = state_hidden(model, batch)
    assert hidden.shape == (int(batch["state_mask"].sum()), model.config.hidden_size)
    found = torch.nn.functional.linear(hidden, weight, bias)
    # independent truth: each trajectory alone, unpadded, positions found from the masks
    expected = []
    for row in rows:
        logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0]
        positions = [t - 1 for t, mine in enumerate(row["agent_mask"]) if mine]
        if not row["terminated"] and not row["agent_mask"][-1]:
            positions.append(len(row["input_ids"]) - 1)
        expected.append(logits[positions])
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("gpt2", {}), ("llama", {}), ("qwen2", {}), ("qwen3", {}), ("gemma2", {"final_logit_softcapping": None})],
)
def test_check_head_accepts_ordinary_heads(kind, settings):
    model = tiny.make(kind, **settings).train()
    before = {name: p.clone() for name, p in model.state_dict().items()}
    check_head(model)
    assert model.training
    assert all(torch.equal(before[name], p) for name, p in model.state_dict().items())


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("gemma2", {"final_logit_softcapping": 30.0}),
        ("granite", {"logits_scaling": 1.005}),
        ("cohere", {"logit_scale": 0.995}),
    ],
)
def test_check_head_refuses_what_changes_logits_after_the_head(kind, settings):
    """A fresh model's logits are near 0, where a cap at 30 is invisible: it must be found all the same."""
    tokenizer = tiny.tokenizer()
    model = tiny.model_from_config({"model_type": kind, **tiny.SIZES[kind], **settings}, tokenizer, 0)
    with pytest.raises(ConfigError, match="changes its logits") as raised:
        check_head(model)
    assert "\n" not in str(raised.value)


def test_check_head_refuses_an_adapter_on_the_head():
    """It is zero at the start, so no comparison of logits shows it, and the loss would never train it."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny.make("llama"), LoraConfig(r=2, target_modules=["q_proj", "lm_head"]))
    with pytest.raises(ConfigError, match="adapter on the head"):
        check_head(model)
    check_head(get_peft_model(tiny.make("llama"), LoraConfig(r=2, target_modules=["q_proj"])))
    check_head(
        get_peft_model(tiny.make("llama"), LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"]))
    )


def test_a_model_without_an_output_embedding_is_refused():
    from transformers import GPT2Config, GPT2Model

    model = GPT2Model(GPT2Config(vocab_size=13, n_embd=8, n_layer=1, n_head=1))
    with pytest.raises(ConfigError, match="no linear output embedding"):
        output_head(model)


class TestDummyToken:
    def test_padding_is_the_first_choice(self):
        assert pick_dummy_token(tiny.tokenizer(), 13) == 0

    def test_a_named_token_or_id_is_taken(self):
        tokenizer = tiny.tokenizer()
        assert pick_dummy_token(tokenizer, 13, "<bos>") == 1
        assert pick_dummy_token(tokenizer, 13, 5) == 5
        assert pick_dummy_token(tokenizer, 13, "<unk>") == 2

    @pytest.mark.parametrize("requested", ["<nope>", 13, -1])
    def test_a_token_that_does_not_exist_is_refused(self, requested):
        """The tokenizer turns an unknown text into <unk>: that is not the token that was asked for."""
        with pytest.raises(ConfigError, match="not in the vocabulary"):
            pick_dummy_token(tiny.tokenizer(), 13, requested)

    def test_an_unused_row_when_padding_ends_the_turn(self):
        tokenizer = tiny.tokenizer()
        tokenizer.pad_token = tokenizer.eos_token
        assert pick_dummy_token(tokenizer, 16) == 15
        assert pick_dummy_token(tokenizer, 13) == tokenizer.unk_token_id

    def test_a_row_is_not_unused_because_ids_have_gaps(self):
        tokenizer = tiny.tokenizer()
        tokenizer.pad_token = tokenizer.eos_token

        class Gaps:
            """A vocabulary of 13 tokens whose last id is 15."""

            def __getattr__(self, name):
                return getattr(tokenizer, name)

            def __len__(self):
                return 13

            def get_vocab(self):
                return {**tokenizer.get_vocab(), "go": 15}

        assert pick_dummy_token(Gaps(), 16) == tokenizer.unk_token_id

    def test_nothing_to_choose(self):
        tokenizer = tiny.tokenizer()
        for name in ("pad_token", "unk_token", "bos_token"):
            setattr(tokenizer, name, tokenizer.eos_token)
        with pytest.raises(ConfigError, match="name one with dummy_token"):
            pick_dummy_token(tokenizer, 13)
