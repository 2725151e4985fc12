"""On random tabular MDPs the implemented targets and losses give p / pi = Q*, exactly."""

import numpy as np
import pytest
import torch

from qsft import objectives
from qsft.models import Extraction
from tests.objectives.tabular import TabularMDP, fixed_point

SEEDS = range(20)


def scaled_optimum(mdp: TabularMDP) -> tuple[np.ndarray, np.ndarray]:
    """Scaled Q* of first tokens [S, A] and second tokens [S, A, A]."""
    low, high = mdp.return_range
    second = (mdp.optimal_q() - low) / (high - low)
    return second.max(axis=2), second


def error(mdp: TabularMDP, table: torch.Tensor) -> float:
    first, second = scaled_optimum(mdp)
    ratios = (table - mdp.behaviour_table())[:, :-1].exp().numpy()
    states = len(first)
    return max(np.abs(ratios[:states] - first).max(), np.abs(ratios[states:].reshape(second.shape) - second).max())


@pytest.mark.parametrize("form", ["dummy", "anchored"])
@pytest.mark.parametrize("seed", SEEDS)
def test_ratio_is_the_optimal_q(seed, form):
    mdp = TabularMDP.random(seed)
    assert error(mdp, fixed_point(mdp, form)) < 1e-6


def test_uniform_form_fails_unclipped():
    errors = []
    for seed in SEEDS:
        mdp = TabularMDP.random(seed)
        errors.append(error(mdp, fixed_point(mdp, "uniform", clip=False, steps=50)))
    assert np.median(errors) > 1.0, "the leak over a small pi must dominate the maximum"


def test_value_extraction_approaches_the_optimal_policy():
    """Share of the way from the behaviour's value to the optimum, by extraction and beta, over all MDPs."""
    value, likelihood = [], []
    for seed in SEEDS:
        mdp = TabularMDP.random(seed)
        table = fixed_point(mdp, "dummy")
        value.append([progress(mdp, table, Extraction("value", beta=beta)) for beta in (0.0, 1.0, 30.0, 300.0, 1e6)])
        likelihood.append([progress(mdp, table, Extraction("likelihood", beta=beta)) for beta in (1.0, 1e6)])
    np.testing.assert_allclose(np.array(value)[:, 0], 0, atol=1e-4)  # beta = 0 is the behaviour
    np.testing.assert_allclose(np.array(value)[:, -1], 1, atol=1e-3)  # a large beta is the optimal policy
    assert np.all(np.diff(np.mean(value, axis=0)) > 0)
    # the paper's extraction weighs pi by p = pi Q: it cannot become optimal however large its beta
    assert np.mean(likelihood, axis=0).max() < 0.9


def progress(mdp: TabularMDP, table: torch.Tensor, extraction: Extraction) -> float:
    states, tokens = mdp.shape
    logits = extraction.policy_logits(table, mdp.behaviour_table(), tokens)[:, :-1].double()
    policy = torch.softmax(logits, dim=1).numpy()
    reached = mdp.policy_value(policy[:states], policy[states:].reshape(states, tokens, tokens)).mean()
    optimum = mdp.optimal_q().max(axis=(1, 2)).mean()
    start = mdp.policy_value(mdp.behaviour_first, mdp.behaviour_second).mean()
    return float((reached - start) / (optimum - start))


def test_anchored_gradient_has_the_same_mean_and_less_variance():
    generator = torch.Generator().manual_seed(0)
    tokens, samples = 5, 200_000
    pi = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05])
    q = torch.tensor([0.75, 0.8, 0.7, 0.85, 0.78])
    p = torch.cat([pi * q, (1 - (pi * q).sum())[None]])
    actions = torch.multinomial(pi, samples, replacement=True, generator=generator)
    weights = (q[actions] + 0.05 * torch.randn(samples, generator=generator)).clamp(0, 1)
    support_ids = torch.arange(tokens).expand(samples, tokens)
    support_logps = pi.log().expand(samples, tokens)
    alive = (pi * q).sum().expand(samples)

    def gradients(fitted: objectives.TargetDistribution) -> torch.Tensor:
        mass = fitted.coefficients.sum(dim=1, keepdim=True)
        return (mass * p).scatter_add(1, fitted.ids, -fitted.coefficients)

    dummy = gradients(objectives.dummy(actions, weights, tokens))
    anchored = gradients(objectives.anchored(actions, weights, alive, support_ids, support_logps, tokens))
    noise = (dummy.var(dim=0) / samples).sqrt()
    assert torch.all((dummy.mean(dim=0) - anchored.mean(dim=0)).abs() < 5 * noise)
    ratio = anchored[:, :-1].var(dim=0).sum() / dummy[:, :-1].var(dim=0).sum()
    assert ratio < 0.05, "the control variate must take away nearly all the variance of the actions' gradient"


@pytest.mark.parametrize("seed", range(4))
def test_balanced_gradient_vanishes_at_the_optimum_and_nowhere_near(seed):
    """Any distribution of weights: at ``p = pi E[w|s, a]`` nothing moves, and from anywhere the loss leads there."""
    generator = torch.Generator().manual_seed(seed)
    tokens = 4
    pi = torch.softmax(2 * torch.randn(tokens, generator=generator, dtype=torch.float64), 0)
    outcomes = torch.rand(tokens, 3, generator=generator, dtype=torch.float64) ** 4  # three as likely weights an action
    optimum = torch.cat([pi * outcomes.mean(1), (1 - (pi * outcomes.mean(1)).sum())[None]])
    actions = torch.arange(tokens).repeat_interleave(3)
    fitted = objectives.balanced(actions, outcomes.flatten(), tokens, max_weight=1e9)
    each = (pi[:, None] / 3).expand(-1, 3).flatten()

    def gradient(logits: torch.Tensor) -> torch.Tensor:
        leaf = logits.clone().requires_grad_(True)
        losses = objectives.cross_entropy(leaf.expand(len(actions), -1), fitted)
        return torch.autograd.grad((each * losses).sum(), leaf)[0]

    assert gradient(optimum.log()).abs().max() < 1e-12
    assert gradient(optimum.log() + 0.1 * torch.randn(tokens + 1, generator=generator)).abs().max() > 1e-4
    logits = torch.zeros(tokens + 1, dtype=torch.float64)
    for _ in range(2_000):
        logits = logits - gradient(logits)
    torch.testing.assert_close(torch.softmax(logits, 0), optimum, atol=1e-3, rtol=0)


def test_exponential_weights_make_p_the_regularised_optimum():
    """A tree of two turns without chance: p / pi, fitted to what episodes returned, against soft values from the leaves."""
    generator = torch.Generator().manual_seed(0)
    tokens, temperature = 3, 0.15
    pi = torch.softmax(
        torch.randn(1 + tokens, tokens, generator=generator, dtype=torch.float64), 1
    )  # root, then children
    returns = torch.rand(tokens, tokens, generator=generator, dtype=torch.float64)
    soft = temperature * (pi[1:] * (returns / temperature).exp()).sum(1).log()  # KL-regularised value of each child
    best = torch.softmax(pi[0].log() + soft / temperature, 0)
    # the root's optimum under the weights of whole episodes, whose second action is the behaviour's
    ratio = (pi[1:] * objectives.exponential_weights(returns, temperature)).sum(1)
    torch.testing.assert_close(objectives.scaled_value(ratio.log(), temperature), soft)
    p = torch.cat([pi[0] * ratio, (1 - (pi[0] * ratio).sum())[None]]).log()
    torch.testing.assert_close(
        torch.softmax(Extraction("product").policy_logits(p, None, tokens), 0)[:-1].double(), best
    )
    # the value extraction with beta = 1 / T is the same policy
    prior = torch.cat([pi[0].log(), torch.tensor([-torch.inf])])
    logits = Extraction("value", beta=1 / temperature).policy_logits(p, prior, tokens, temperature)
    torch.testing.assert_close(torch.softmax(logits, 0)[:-1].double(), best, atol=1e-5, rtol=0)
    # and the soft backup reads the root's value off the dummy token
    alive = torch.logsumexp(p[:-1], 0)
    root = temperature * (pi[0] * (soft / temperature).exp()).sum().log()
    torch.testing.assert_close(objectives.scaled_value(alive, temperature), root)
