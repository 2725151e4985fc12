"""The target network follows the formula, and an adapter in its place does not disturb the model in training."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from qsft.data import TrajectoryCollator
from qsft.models import AdapterTarget, TargetNetwork, make_target, output_head, state_hidden
from tests.models import tiny


@pytest.fixture
def batch(tmp_path):
    return TrajectoryCollator(0)(list(tiny.dataset(tmp_path, tiny.trajectories(5))))


def adapted(seed=0, **settings):
    torch.manual_seed(seed)
    config = LoraConfig(r=2, target_modules=["q_proj", "down_proj"], lora_dropout=0.3, **settings)
    return get_peft_model(tiny.make("llama"), config).train()


def shake(parameters, scale=0.1):
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.randn_like(parameter) * scale)


def trained_parameters(model):
    return [p for p in model.parameters() if p.requires_grad]


class TestMovingAverage:
    @pytest.mark.parametrize("tie", [True, False])
    def test_equals_the_formula_after_several_steps(self, tie):
        rate = 0.05
        model = tiny.make("llama", tie_word_embeddings=tie)
        assert (model.lm_head.weight is model.model.embed_tokens.weight) == tie
        target = make_target(model)
        average = {name: p.detach().double().clone() for name, p in model.named_parameters()}
        torch.manual_seed(0)
        for _ in range(7):
            shake(model.parameters())
            target.update(model, rate)
            for name, p in model.named_parameters():
                average[name] += rate * (p.double() - average[name])
        found = dict(target.copy.named_parameters())
        assert found.keys() == average.keys()
        for name, p in found.items():
            torch.testing.assert_close(p.double(), average[name], rtol=1e-5, atol=1e-6)
        assert (target.copy.lm_head.weight is target.copy.model.embed_tokens.weight) == tie
        assert not any(p.requires_grad for p in target.parameters())

    def test_moves_a_half_precision_model_too(self):
        """In bfloat16 a step of half a per cent is lost to rounding, and the target would never move."""
        model = tiny.make("llama").to(torch.bfloat16)
        target = make_target(model)
        start = [p.double().clone() for p in target.parameters()]
        shake(model.parameters())
        for _ in range(40):
            target.update(model, 0.005)
        kept = 0.995**40
        for before, now, p in zip(start, target.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(now.double(), kept * before + (1 - kept) * p.double(), rtol=1e-3, atol=1e-5)

    def test_distance(self):
        model = tiny.make("gpt2")
        target = make_target(model)
        assert target.distance(model) == 0
        shake(model.parameters())
        flat = torch.cat([p.flatten() for p in model.parameters()])
        old = torch.cat([p.flatten() for p in target.parameters()])
        assert target.distance(model) == pytest.approx(float((flat - old).norm() / flat.norm()), rel=1e-5)

    def test_running_statistics_are_the_model_s(self):
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).train()
        target = TargetNetwork(model)
        for _ in range(5):
            model(torch.randn(8, 3) * 3 + 1)
            target.update(model, 0.1)
        assert model[1].running_mean.abs().max() > 0.1
        for mine, other in zip(target.copy.buffers(), model.buffers(), strict=True):
            torch.testing.assert_close(mine, other)


class TestFullCopy:
    def test_sees_no_dropout_even_before_anybody_sets_a_mode(self, batch):
        model = tiny.make("gpt2", resid_pdrop=0.5, embd_pdrop=0.5).train()
        target = TargetNetwork(model)
        expected = state_hidden(copy.deepcopy(model).eval(), batch)
        torch.testing.assert_close(target.hidden(model, batch), expected)
        target.train()
        torch.testing.assert_close(target.hidden(model, batch), expected)

    def test_is_a_copy(self, batch):
        model = tiny.make("llama")
        target = make_target(model)
        before = target.hidden(model, batch)
        shake(model.parameters())
        torch.testing.assert_close(target.hidden(model, batch), before, rtol=0, atol=0)
        assert target.head(model)[0] is target.copy.lm_head.weight


class TestAdapterTarget:
    @pytest.mark.parametrize("start", [True, "gaussian", "pissa", "olora"])
    def test_making_it_leaves_the_model_as_it_was_however_adapters_start(self, batch, start):
        """Some ways to start an adapter change the base, which a second adapter must not do again."""
        model = adapted(init_lora_weights=start).eval()
        before = state_hidden(model, batch)
        target = make_target(model)
        torch.testing.assert_close(state_hidden(model, batch), before, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(target.hidden(model, batch), before, atol=1e-5, rtol=1e-5)

    def test_begins_equal(self, batch):
        model = adapted()
        shake(trained_parameters(model))
        target = make_target(model)
        assert isinstance(target, AdapterTarget)
        assert not list(target.parameters())
        assert target.distance(model) == 0
        with torch.no_grad():
            torch.testing.assert_close(target.hidden(model, batch), state_hidden(copy.deepcopy(model).eval(), batch))

    def test_hidden_equals_weights_merged_by_hand(self, batch):
        model = adapted()
        target = make_target(model)
        shake(trained_parameters(model))
        target.update(model, 0.25)
        shake(trained_parameters(model))
        merged = tiny.make("llama")
        weights = dict(model.named_parameters())
        scale = 8 / 2  # lora_alpha / r
        changed = 0
        with torch.no_grad():
            for name, p in merged.named_parameters():
                prefix = "base_model.model." + name.removesuffix(".weight")
                if f"{prefix}.lora_A.target.weight" in weights:
                    b, a = (weights[f"{prefix}.lora_{x}.target.weight"] for x in "BA")
                    p += scale * b @ a
                    changed += 1
            assert changed == 4
            torch.testing.assert_close(target.hidden(model, batch), state_hidden(merged, batch), rtol=1e-4, atol=1e-5)

    def test_average_equals_the_formula(self):
        model = adapted()
        shake(trained_parameters(model))
        target = make_target(model)
        ours, theirs = target.pairs(model)
        assert len(ours) == len(theirs) == len(trained_parameters(model)) == 8
        assert {id(p) for p in theirs} == {id(p) for p in trained_parameters(model)}
        average = [p.double().clone() for p in ours]
        for _ in range(5):
            shake(theirs)
            target.update(model, 0.1)
            average = [0.9 * a + 0.1 * p.double() for a, p in zip(average, theirs, strict=True)]
        for found, expected in zip(target.pairs(model)[0], average, strict=True):
            torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)

    def test_the_trained_adapter_alone_gets_a_gradient(self, batch):
        """Switching adapters between forward and backward would give none, silently."""
        model = adapted()
        target = make_target(model)
        shake(trained_parameters(model))
        trainable = {name for name, p in model.named_parameters() if p.requires_grad}
        hidden = target.hidden(model, batch)
        target.head(model)
        assert not hidden.requires_grad
        state_hidden(model, batch).square().sum().backward()
        for name, p in model.named_parameters():
            if ".default." in name:
                assert name in trainable
                assert p.grad is not None, name
                assert p.grad.abs().max() > 0, name
            else:
                assert p.grad is None, name

    def test_the_model_is_as_before(self, batch):
        model = adapted()
        target = make_target(model)
        frozen = model.base_model.model.model.layers[0].mlp
        frozen.eval()
        modes = [module.training for module in model.modules()]
        gradients = {name: p.requires_grad for name, p in model.named_parameters()}
        with torch.no_grad():
            target.hidden(model, batch)
            target.head(model)
        assert model.active_adapters == ["default"]
        assert [module.training for module in model.modules()] == modes
        assert {name: p.requires_grad for name, p in model.named_parameters()} == gradients
        assert not any(grad for name, grad in gradients.items() if ".default." not in name)

    def test_the_model_is_as_before_after_a_failure(self):
        model = adapted()
        target = make_target(model)
        with pytest.raises(KeyError):
            target.hidden(model, {"input_ids": torch.tensor([[1, 2]])})
        assert model.active_adapters == ["default"]
        assert model.training

    def test_a_head_that_is_trained_whole_has_a_target_of_its_own(self, batch):
        model = adapted(modules_to_save=["lm_head"])
        target = make_target(model)
        before = target.head(model)[0].detach().clone()
        shake(trained_parameters(model))
        torch.testing.assert_close(target.head(model)[0], before, rtol=0, atol=0)
        assert not torch.equal(output_head(model)[0], before)
        assert model.active_adapters == ["default"]
