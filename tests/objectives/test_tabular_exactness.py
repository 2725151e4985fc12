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
