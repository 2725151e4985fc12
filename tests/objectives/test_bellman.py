"""Targets against a loop over tokens, and values against their definitions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qsft.data.batch import NO_ACTION, TrajectoryCollator
from qsft.objectives import bellman_targets, max_value, monte_carlo_targets, q_ratios, soft_value


def test_values_by_hand():
    support = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.6, 0.4, 0.0]]))
    likelihood = torch.log(torch.tensor([[0.4, 0.05, 0.25], [0.3, 0.1, 0.9]]))
    q = q_ratios(likelihood, support)
    torch.testing.assert_close(q, torch.tensor([[0.8, 0.2, 1.0], [0.5, 0.25, 0.0]]))
    torch.testing.assert_close(max_value(q, support), torch.tensor([1.0, 0.5]))
    b = 3.0
    expected = math.log(0.5 * math.exp(b * 0.8) + 0.25 * math.exp(b * 0.2) + 0.25 * math.exp(b)) / b
    assert float(soft_value(q, support, b)[0]) == pytest.approx(expected, abs=1e-6)


def test_ratio_is_clipped_at_one():
    assert float(q_ratios(torch.tensor([math.log(0.9)]), torch.tensor([math.log(1e-8)]))) == 1.0


def test_a_soft_value_of_no_numbers_is_none():
    """Only an empty support is worth 0: a broken model must not look like the worst state."""
    support = torch.tensor([[-0.5, -1.0], [-torch.inf, -torch.inf]])
    values = soft_value(torch.tensor([[torch.nan, 0.5], [0.0, 0.0]]), support, 5.0)
    assert values.isnan().tolist() == [True, False] and values[1] == 0


def test_soft_value_lies_between_mean_and_maximum():
    torch.manual_seed(0)
    support = torch.log_softmax(torch.randn(40, 6), 1)
    q = torch.rand(40, 6)
    mean, top = (support.exp() * q).sum(1), q.amax(1)
    torch.testing.assert_close(soft_value(q, support, 1e-3), mean, atol=1e-3, rtol=0)
    torch.testing.assert_close(soft_value(q, support, 1e4), top, atol=2e-3, rtol=0)
    previous = mean
    for beta in (1.0, 5.0, 25.0, 125.0):
        value = soft_value(q, support, beta)
        assert torch.all(value >= previous - 1e-6)
        assert torch.all(value <= top + 1e-6)
        previous = value


def test_soft_value_renormalises_on_the_support():
    # half of the behaviour's mass is outside: a constant Q must still have that constant as its value
    support = torch.log(torch.tensor([[0.3, 0.2, 0.0]]))
    assert float(soft_value(torch.tensor([[0.7, 0.7, 0.0]]), support, 5.0)) == pytest.approx(0.7, abs=1e-6)


rows_strategy = st.lists(
    st.tuples(
        st.lists(st.integers(1, 4), min_size=1, max_size=4),  # tokens of each agent turn
        st.booleans(),  # terminated
        st.booleans(),  # a last observation follows
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(
    rows=rows_strategy,
    seed=st.integers(0, 10_000),
    per=st.sampled_from(["turn", "token"]),
    trace=st.sampled_from([0.0, 0.6, 1.0]),
)
def test_targets_against_a_loop(rows, seed, per, trace):
    rng = np.random.default_rng(seed)
    low, high, gamma = -3.0, 2.0, 0.9
    made = []
    for turns, terminated, trailing in rows:
        mask, ends = [0], [0]
        for length in turns:
            mask += [1] * length + [0]
            ends += [0] * (length - 1) + [1, 0]
        if not trailing:
            mask, ends = mask[:-1], ends[:-1]
        ids = rng.integers(1, 50, len(mask)).tolist()
        rewards = rng.uniform(-1, 0.5, len(turns)).astype(np.float32).tolist()
        made.append(dict(input_ids=ids, agent_mask=mask, turn_end=ends, turn_rewards=rewards, terminated=terminated))
    batch = TrajectoryCollator(0, gamma, per)(made)
    values = torch.tensor(rng.random(batch["actions"].shape), dtype=torch.float32)
    targets = bellman_targets(
        values,
        batch["rewards"],
        batch["actions"] != NO_ACTION,
        batch["turn_end"],
        batch["terminal"],
        batch["state_mask"],
        (low, high),
        gamma,
        per,
        trace,
    )
    for i, (turns, terminated, trailing) in enumerate(rows):
        g = 0.0
        total = sum(turns)
        steps = [
            (made[i]["turn_rewards"][turn] if k == length - 1 else 0.0, k == length - 1)
            for turn, length in enumerate(turns)
            for k in range(length)
        ]
        weight_after = None
        for n in range(total - 1, -1, -1):
            reward, last = steps[n]
            discount = gamma if (last or per == "token") else 1.0
            if n == total - 1 and terminated:
                raw, valid = reward, True
            elif n == total - 1 and not trailing:
                raw, valid = 0.0, False
            else:
                following = float(values[i, n + 1])
                if weight_after is not None:
                    following = (1 - trace) * following + trace * weight_after
                raw, valid = reward + discount * (low + following * (high - low)), True
            assert bool(targets.valid[i, n]) == valid
            weight_after = None
            if valid:
                w = (raw - low) / (high - low)
                weight_after = min(max(w, 0.0), 1.0)
                assert float(targets.weights[i, n]) == pytest.approx(weight_after, abs=1e-5)
                if min(abs(w), abs(w - 1)) > 1e-4:
                    assert bool(targets.clipped[i, n]) == (w < 0 or w > 1)
        n = total
        assert not targets.valid[i, n:].any()
        # returns-to-go, from the back
        for n in range(total - 1, -1, -1):
            reward, last = steps[n]
            g = reward + (gamma if (last or per == "token") else 1.0) * g
            assert float(batch["returns_to_go"][i, n]) == pytest.approx(g, abs=1e-5)


def test_a_full_trace_is_the_monte_carlo_return():
    rng = np.random.default_rng(0)
    row = dict(
        input_ids=list(range(1, 12)),
        agent_mask=[0, 1, 1, 0, 1, 1, 1, 0, 1, 1, 1],
        turn_end=[0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1],
        turn_rewards=[-1.0, 0.5, -0.25],
        terminated=True,
    )
    batch = TrajectoryCollator(0, 0.9)([row])
    acted = batch["actions"] != NO_ACTION
    values = torch.tensor(rng.random(batch["actions"].shape), dtype=torch.float32)
    state = (batch["turn_end"], batch["terminal"], batch["state_mask"])
    full = bellman_targets(values, batch["rewards"], acted, *state, (-3.0, 3.0), 0.9, trace=1.0)
    returns = monte_carlo_targets(batch["returns_to_go"], acted, (-3.0, 3.0))
    torch.testing.assert_close(full.weights, returns.weights)
