"""The chunked kernel against the naive loss, closed forms, and finite differences."""

import math

import pytest
import torch

from qsft.objectives import (
    TargetDistribution,
    anchored,
    balanced,
    chunked,
    cross_entropy,
    dummy,
    linear_cross_entropy,
    linear_log_probabilities,
    supervised,
    uniform,
)

N, H, V, K, DUMMY = 50, 16, 101, 4, 100


def problem(form, dtype=torch.float32):
    g = torch.Generator().manual_seed(3)
    hidden = torch.randn(N, H, generator=g, dtype=dtype)
    weight = torch.randn(V, H, generator=g, dtype=dtype) * 0.5
    bias = torch.randn(V, generator=g, dtype=dtype)
    actions = torch.randint(0, V - 1, (N,), generator=g)
    weights = torch.rand(N, generator=g, dtype=dtype)
    support = torch.stack([torch.randperm(V - 1, generator=g)[:K] for _ in range(N)])
    support[::2, 0] = actions[::2]  # half of the logged actions are in the support
    support[::2, 1:] = torch.where(support[::2, 1:] == actions[::2, None], -1, support[::2, 1:])
    logps = torch.log_softmax(torch.randn(N, K + 1, generator=g, dtype=dtype), dim=1)[:, :K]
    logps = logps.masked_fill(support < 0, -math.inf)
    baseline = torch.rand(N, generator=g, dtype=dtype)
    target = {
        "supervised": lambda: supervised(actions),
        "dummy": lambda: dummy(actions, weights, DUMMY),
        "balanced": lambda: balanced(actions, weights, DUMMY, max_weight=1.05),
        "uniform": lambda: uniform(actions, weights, V),
        "anchored": lambda: anchored(actions, weights, baseline, support, logps, DUMMY),
    }[form]()
    return hidden, weight, bias, target, (actions, weights, baseline, support, logps)


def written_out(form, logits, extra):
    """The formulas of the papers and of the algorithm page, term by term, state by state."""
    actions, weights, baseline, support, logps = extra
    total = torch.zeros((), dtype=logits.dtype)
    for n in range(len(logits)):
        lp, a, w, b = torch.log_softmax(logits[n], 0), int(actions[n]), weights[n], baseline[n]
        if form == "supervised":
            total = total - lp[a]
        elif form == "dummy":
            total = total - (w * lp[a] + (1 - w) * lp[DUMMY])
        elif form == "balanced":
            alive = 1 - lp[DUMMY].exp()
            policy = min(w / alive.detach(), torch.tensor(1.05, dtype=w.dtype))
            total = total - (w * alive.log() + (1 - w) * lp[DUMMY] + policy * (lp[a] - alive.log()))
        elif form == "uniform":
            others = sum(lp[j] for j in range(V) if j != a)
            total = total - (w * lp[a] + (1 - w) / (V - 1) * others)
        else:
            total = total - (w * lp[a] + (1 - w) * lp[DUMMY])
            inside = [int(i) for i in support[n] if i >= 0]
            expected = sum(logps[n, k].exp() * lp[i] for k, i in enumerate(support[n].tolist()) if i >= 0)
            total = total + b * ((lp[a] if a in inside else 0.0) - expected)
    return total


FORMS = ["supervised", "dummy", "uniform", "anchored", "balanced"]


@pytest.mark.parametrize("form", FORMS)
def test_loss_is_the_formula(form):
    hidden, weight, bias, target, extra = problem(form, torch.float64)
    logits = hidden @ weight.T + bias
    torch.testing.assert_close(cross_entropy(logits, target).sum(), written_out(form, logits, extra))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("chunk", [1, 7, 50, 1000])
@pytest.mark.parametrize("with_bias", [True, False])
def test_chunked_equals_naive_in_loss_and_gradients(form, chunk, with_bias):
    hidden, weight, bias, target, _ = problem(form)
    leaves = [hidden, weight] + ([bias] if with_bias else [])
    for leaf in leaves:
        leaf.requires_grad_(True)
    bias = bias if with_bias else None
    naive = cross_entropy(torch.nn.functional.linear(hidden, weight, bias), target).sum()
    expected = torch.autograd.grad(3.0 * naive, leaves)
    loss, logps = linear_cross_entropy(hidden, weight, bias, target, chunk)
    got = torch.autograd.grad(3.0 * loss, leaves)
    assert abs(float((loss - naive) / naive)) < 1e-6
    for one, other in zip(got, expected, strict=True):
        assert float((one - other).norm() / other.norm()) < 1e-6
    logits = torch.nn.functional.linear(hidden, weight, bias)
    torch.testing.assert_close(logps, torch.log_softmax(logits, 1).gather(1, target.ids[:, :1])[:, 0])


@pytest.mark.parametrize("form", FORMS)
def test_gradient_by_finite_differences(form):
    hidden, weight, bias, target, _ = problem(form, torch.float64)
    inputs = [hidden[:5].requires_grad_(True), weight.requires_grad_(True), bias.requires_grad_(True)]
    rest = None if target.rest is None else target.rest[:5]
    # the balanced form's weights have no gradient; cut, they are numbers that a step leaves alone
    limit = None if target.max_weight is None else 1e-3
    target = TargetDistribution(target.ids[:5], target.coefficients[:5], rest, limit)
    assert torch.autograd.gradcheck(lambda h, w, b: linear_cross_entropy(h, w, b, target, 2)[0], inputs, fast_mode=True)


def test_gradient_of_the_dummy_form_is_p_minus_target():
    _, _, _, target, (actions, weights, *_) = problem("dummy", torch.float64)
    logits = torch.randn(N, V, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(cross_entropy(logits, target).sum(), logits)
    expected = torch.softmax(logits, 1).detach()
    expected[torch.arange(N), actions] -= weights
    expected[:, DUMMY] -= 1 - weights
    torch.testing.assert_close(grad, expected)


def test_weight_one_is_supervised_fine_tuning():
    hidden, weight, bias, target, (actions, *_) = problem("supervised")
    ones = torch.ones(N)
    plain = torch.nn.functional.cross_entropy(hidden @ weight.T + bias, actions, reduction="sum")
    for form in (target, dummy(actions, ones, DUMMY), uniform(actions, ones, V)):
        torch.testing.assert_close(linear_cross_entropy(hidden, weight, bias, form)[0], plain)


def test_bfloat16_stays_close():
    hidden, weight, bias, target, _ = problem("anchored")
    exact = cross_entropy(hidden @ weight.T + bias, target).sum()
    half = hidden.bfloat16().requires_grad_(True)
    loss, _ = linear_cross_entropy(half, weight, bias, target)
    loss.backward()
    assert half.grad is not None
    assert half.grad.dtype == torch.bfloat16
    assert abs(float((loss - exact) / exact)) < 2e-2


def test_log_probabilities_are_streamed():
    hidden, weight, bias, _, (_, _, _, support, _) = problem("anchored")
    expected = torch.log_softmax(hidden @ weight.T + bias, 1).gather(1, support.clamp_min(0))
    got = linear_log_probabilities(hidden, weight, bias, support, chunk_size=7)
    torch.testing.assert_close(got, expected.masked_fill(support < 0, -math.inf))


def test_log_probabilities_are_exact_in_half_precision_training():
    """Far from 0, where softmax sees nothing of it, half precision rounds by more than values differ."""
    hidden, weight, bias, _, (_, _, _, support, _) = problem("anchored")
    bias = bias - 100.0
    expected = torch.log_softmax(hidden @ weight.T + bias, 1).gather(1, support.clamp_min(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = linear_log_probabilities(hidden, weight, bias, support)
    torch.testing.assert_close(got, expected.masked_fill(support < 0, -math.inf), atol=1e-4, rtol=1e-4)


def test_no_more_than_a_chunk_of_logits(monkeypatch):
    sizes = []
    original = chunked._logits

    def spy(hidden, weight, bias):
        sizes.append(len(hidden))
        return original(hidden, weight, bias)

    monkeypatch.setattr(chunked, "_logits", spy)
    hidden, weight, bias, target, _ = problem("anchored")
    linear_cross_entropy(hidden.requires_grad_(True), weight, bias, target, 8)[0].backward()
    assert max(sizes) == 8
    assert sum(sizes) == N
