"""One forward pass over whole trajectories gives the loss, gradient and metrics of the definitions, turn by turn."""

import dataclasses
import math

import pytest
import torch

from qsft.data import TrajectoryCollator
from qsft.models import SupportRule, compute_support, make_target, with_support
from qsft.training.losses import QLoss, QLossSettings, SupervisedLoss
from tests.models import tiny
from tests.training import naive

V = 13
ENDINGS = {"terminated": 0, "bootstrapped": 1, "cut": 2}
BASE = QLossSettings(
    form="anchored",
    backup="soft",
    backup_beta=7.0,
    trace=0.0,
    gamma=0.9,
    gamma_per="turn",
    return_range=(-2.5, 2.0),
    horizon=None,
    dummy_id=0,
)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """18 trajectories."""
    folder = tmp_path_factory.mktemp("rows")
    return supported(tiny.dataset(folder, tiny.trajectories(18, seed=4)), folder)


def supported(data, folder):
    """The rows with the support table of a behaviour model, as plain dicts."""
    rule = SupportRule(threshold=0.3)
    compute_support(
        tiny.make("gpt2", seed=9), data, rule, folder / "s.arrow", pad_token_id=0, dummy_id=0, progress=False
    )
    return [dict(row) for row in with_support(data, folder / "s.arrow")]


def stage_two(settings, kind="gpt2", chunk=4):
    """A loss whose target lies apart from its model."""
    target = make_target(tiny.make(kind, seed=9))
    return QLoss(tiny.make(kind, seed=10), target, settings, chunk).eval()


def collate(rows, settings=BASE):
    return TrajectoryCollator(0, settings.gamma, settings.gamma_per)(rows)


def gradients(loss, model):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def assert_same_gradients(found, expected):
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-6, msg=name)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_supervised_loss_is_the_sum_over_turns(rows, kind):
    module = SupervisedLoss(tiny.make(kind, seed=3), chunk_size=4)
    out = module(**collate(rows))
    truth = naive.supervised(module.model, rows)
    assert out["loss"].item() == pytest.approx(truth.loss.item() / truth.tokens, rel=1e-5)
    expected = gradients(truth.loss / truth.tokens, module.model)
    assert_same_gradients(gradients(out["loss"], module.model), expected)
    assert module.count_targets(collate(rows)) == truth.tokens
    assert out["metrics"]["action_logp"][0].item() == pytest.approx(sum(truth.logps), rel=1e-5)
    assert out["metrics"]["action_logp"][1] == truth.tokens
    assert out["metrics"]["tokens"][0] == sum(len(row["input_ids"]) for row in rows)


def test_supervised_loss_is_transformers_own(rows):
    module = SupervisedLoss(tiny.make("llama", seed=3))
    batch = collate(rows)
    labels = torch.full_like(batch["input_ids"], -100)
    for i, row in enumerate(rows):
        mask = torch.tensor(row["agent_mask"], dtype=torch.bool)
        labels[i, : len(mask)][mask] = batch["input_ids"][i, : len(mask)][mask]
    theirs = module.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
    ours = module(**batch)["loss"]
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    assert_same_gradients(gradients(ours, module.model), gradients(theirs, module.model))


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("form", ["anchored", "dummy", "uniform"])
def test_q_loss_of_each_ending_is_the_sum_over_turns(rows, form, ending):
    settings = dataclasses.replace(BASE, form=form)
    module = stage_two(settings)
    for row in rows[ENDINGS[ending] : 9 : 3]:
        truth = naive.q_loss(module.model, module.target.copy, [row], settings, V)
        assert truth.tokens > 0
        out = module(**collate([row]))
        assert out["loss"].item() == pytest.approx(truth.loss.item() / truth.tokens, rel=1e-4)
        expected = gradients(truth.loss / truth.tokens, module.model)
        assert_same_gradients(gradients(out["loss"], module.model), expected)


VARIANTS = {
    "max": {"backup": "max"},
    "max dummy": {"backup": "max", "form": "dummy"},
    "per token": {"gamma_per": "token", "gamma": 0.8},
    "no discount": {"gamma": 1.0},
    "narrow range, much clipping": {"return_range": (-0.3, 0.4)},
    "monte carlo": {"backup": "monte-carlo"},
    "monte carlo dummy": {"backup": "monte-carlo", "form": "dummy", "dummy_id": 3},
    "monte carlo per token": {"backup": "monte-carlo", "gamma_per": "token"},
    "trace": {"trace": 0.3},
    "trace per token": {"trace": 0.7, "gamma_per": "token"},
    "full trace": {"trace": 1.0, "backup": "max"},
    "trace, much clipping": {"trace": 0.5, "return_range": (-0.5, 0.5)},
    "horizon": {"horizon": 5, "form": "dummy"},
    "horizon, trace": {"horizon": 5, "trace": 0.4},
    "horizon, monte carlo": {"horizon": 5, "backup": "monte-carlo"},
    "uniform": {"form": "uniform"},
    "balanced": {"form": "balanced"},
    "balanced, cut weights": {"form": "balanced", "backup": "monte-carlo", "max_weight": 1.2},
    "exponential": {"weight_temperature": 0.4},
    "exponential, max": {"weight_temperature": 0.4, "backup": "max", "form": "dummy"},
    "exponential, told by the dummy": {"weight_temperature": 0.4, "form": "balanced", "trace": 0.3},
    "exponential, monte carlo": {"weight_temperature": 0.2, "form": "balanced", "backup": "monte-carlo"},
    "dummy elsewhere": {"dummy_id": 2},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_q_loss_of_a_batch_and_its_metrics(rows, variant):
    settings = dataclasses.replace(BASE, **VARIANTS[variant])
    module = stage_two(settings, kind="llama")
    truth = naive.q_loss(module.model, module.target.copy, rows, settings, V)
    batch = collate(rows, settings)
    out = module(**batch)
    assert out["loss"].item() == pytest.approx(truth.loss.item() / truth.tokens, rel=1e-4)
    assert_same_gradients(gradients(out["loss"], module.model), gradients(truth.loss / truth.tokens, module.model))
    assert module.count_targets(batch) == truth.tokens
    metrics = {name: float(total) / count for name, (total, count) in out["metrics"].items()}
    if not settings.reads_values:  # the behaviour's value instead of the target network's
        logps = [naive.log_probabilities(module.model, row["input_ids"])[naive.turns(row)[0][0] - 1] for row in rows]
        alive = [1 - float(logp[settings.dummy_id].detach().exp()) for logp in logps]
        if settings.weight_temperature is not None:  # a weight of the value that it stands for
            alive = [max(0.0, 1 + settings.weight_temperature * math.log(weight)) for weight in alive]
        assert metrics["first_value"] == pytest.approx(sum(alive) / len(rows), rel=1e-4)
    assert metrics["target_mean"] == pytest.approx(sum(truth.weights) / truth.tokens, rel=1e-4)
    assert metrics["target_square"] == pytest.approx(sum(w * w for w in truth.weights) / truth.tokens, rel=1e-4)
    assert metrics["clipped_share"] == pytest.approx(truth.clipped / truth.tokens)
    if settings.reads_values:
        assert metrics["first_value"] == pytest.approx(sum(truth.first_values) / len(rows), rel=1e-4)
    assert metrics["first_return"] == pytest.approx(sum(truth.first_returns) / len(rows), rel=1e-4)
    assert metrics["action_logp"] == pytest.approx(sum(truth.logps) / len(truth.logps), rel=1e-4)
    if "clip" in variant:
        assert truth.clipped > 5


def test_monte_carlo_first(rows):
    module = stage_two(BASE)
    module.monte_carlo_only = True
    truth = naive.q_loss(module.model, module.target.copy, rows, BASE, V, monte_carlo=True)
    assert module.count_targets(collate(rows)) == truth.tokens
    assert module(**collate(rows))["loss"].item() == pytest.approx(truth.loss.item() / truth.tokens, rel=1e-4)


@pytest.mark.parametrize("loss", ["supervised", "q"])
def test_padding_changes_nothing(rows, loss):
    """A batch of many lengths is the token-weighted mean of its rows."""
    module = SupervisedLoss(tiny.make("gpt2", seed=3)) if loss == "supervised" else stage_two(BASE)
    whole = module(**collate(rows))["loss"]
    total, count = 0.0, 0
    for row in rows:
        batch = collate([row])
        if tokens := int(module.count_targets(batch)):
            total += module(**batch, num_items_in_batch=torch.tensor(1))["loss"].item()
            count += tokens
    assert whole.item() == pytest.approx(total / count, rel=1e-5)


def test_a_batch_without_any_target_is_harmless(rows):
    """All trajectories cut after a turn of one token: nothing to bootstrap from, no target, and no 0 / 0."""
    cut = [row for row in rows if sum(row["agent_mask"]) == 2 and not row["terminated"] and row["agent_mask"][-1]]
    assert cut, "the data should have a truncated trajectory of one short turn"
    row = dict(cut[0])
    start = row["agent_mask"].index(1)
    row["input_ids"], row["agent_mask"], row["turn_end"] = (
        [*row[name][:start], row[name][-1]] for name in ("input_ids", "agent_mask", "turn_end")
    )
    count = row["support_counts"][0]
    row |= {name: row[name][:count] for name in ("support_ids", "support_logps")} | {"support_counts": [count]}
    module = stage_two(BASE)
    batch = collate([row])
    assert module.count_targets(batch) == 0
    for given in ({}, {"num_items_in_batch": torch.tensor(0)}):
        out = module(**batch, **given)
        assert out["loss"].item() == 0.0
        assert all(not grad.any() for grad in gradients(out["loss"], module.model).values())


def test_the_target_sees_no_dropout(rows):
    settings = dataclasses.replace(BASE, form="dummy")
    model = tiny.make("gpt2", seed=10, resid_pdrop=0.4, embd_pdrop=0.4)
    module = QLoss(model, make_target(model), settings).train()
    torch.manual_seed(0)
    first, second = (module.state_values(collate(rows))[0] for _ in range(2))
    assert torch.equal(first, second)
    assert model.training
    losses = {module(**collate(rows))["loss"].item() for _ in range(2)}
    assert len(losses) == 2  # while the model itself does


def test_chunk_size_changes_nothing(rows):
    small, large = (stage_two(BASE, chunk=size)(**collate(rows))["loss"].item() for size in (1, 1000))
    assert small == pytest.approx(large, rel=1e-6)


def test_nothing_flows_into_the_target(rows):
    module = stage_two(BASE)
    module(**collate(rows))["loss"].backward()
    assert all(p.grad is None for p in module.target.parameters())
    assert all(p.grad is not None for p in module.model.parameters())


@pytest.mark.parametrize("form", ["dummy", "balanced"])
def test_monte_carlo_targets_need_no_target_network(rows, monkeypatch, form):
    module = stage_two(dataclasses.replace(BASE, form=form, backup="monte-carlo"))
    batch = collate(rows)
    whole = module(**batch)["loss"]
    monkeypatch.setattr(type(module.target), "hidden", None)
    assert torch.equal(module(**{k: v for k, v in batch.items() if "support" not in k})["loss"], whole)


def test_the_soft_backup_of_exponential_weights_needs_no_support(rows):
    module = stage_two(dataclasses.replace(BASE, form="balanced", weight_temperature=0.3))
    batch = collate(rows)
    without = {k: v for k, v in batch.items() if "support" not in k}
    assert torch.equal(module(**without)["loss"], module(**batch)["loss"])
