"""Losses of the value baselines: the originals' golden vectors, plain loops, and tabular problems solved exactly."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from qsft import objectives
from tests.objectives.tabular import TabularMDP

GOLDEN = Path(__file__).parents[3] / "shared/golden/ilql.json"
#: scaled values stand for [-SPAN, SPAN], so wide that nothing is clipped; their losses are (2 SPAN)^2 times smaller
SPAN = 64.0


@pytest.fixture(autouse=True)
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def scaled(value):
    return (value + SPAN) / (2 * SPAN)


class Case:
    """Tensors of a golden case in the shapes of a TokenBatch."""

    def __init__(self, tensors):
        t = {name: torch.tensor(value) for name, value in tensors.items() if name not in ("qs", "target_qs")}
        self.ids, self.attended, self.logits = t["ids"], t["attention_mask"], t["logits"]
        self.places = t["actions_ixs"]
        self.actions = self.ids.gather(1, self.places + 1)
        self.alive = t["dones"].bool()
        self.acted = self.alive[:, :-1]
        self.terminal = self.acted & ~self.alive[:, 1:]
        self.rewards = t["rewards"]
        self.values = t["vs"].squeeze(-1)
        self.qs = [torch.tensor(q) for q in tensors["qs"]]
        self.target_qs = [torch.tensor(q) for q in tensors["target_qs"]]

    def logged(self, q):
        return q.gather(-1, self.actions[..., None])[..., 0]

    @property
    def target_q(self):
        return torch.stack([self.logged(q) for q in self.target_qs]).amin(dim=0)

    def targets(self, values, terminal, gamma):
        """From values [B, n + 1] in reward units."""
        padded = torch.zeros_like(self.alive[:, :1])
        return objectives.bellman_targets(
            scaled(values),
            functional.pad(self.rewards, (0, 1)),
            torch.cat([self.acted, padded], dim=1),
            torch.zeros_like(self.alive),
            torch.cat([terminal, padded], dim=1),
            self.alive,
            (-SPAN, SPAN),
            gamma,
            "token",
        )

    def q_loss(self, values, terminal, gamma):
        targets = self.targets(values, terminal, gamma)
        assert torch.equal(targets.valid[:, :-1], self.acted) and not targets.clipped.any()
        heads = [scaled(self.logged(q)) for q in self.qs]
        total = objectives.q_regression(heads, targets.weights[:, :-1], targets.valid[:, :-1])
        return float(total) * (2 * SPAN) ** 2 / int(self.acted.sum())


def golden():
    if not GOLDEN.is_file():
        return []
    cases = json.loads(GOLDEN.read_text())["cases"]
    return [
        pytest.param(case["tensors"], run, id=f"{case['name']}-{i}")
        for case in cases
        for i, run in enumerate(case["runs"])
    ]


@pytest.mark.skipif(not GOLDEN.is_file(), reason="golden vectors of the originals are not beside the repository")
def test_golden_vectors_are_there():
    assert len(golden()) == 9


@pytest.mark.parametrize(("tensors", "run"), golden())
def test_golden_losses_are_reproduced_exactly(tensors, run):
    case, hyper, snell_hyper = Case(tensors), run["hyper"], run["snell_hyper"]
    count = int(case.acted.sum())

    q_loss = case.q_loss(case.values, case.terminal, hyper["gamma"])
    assert q_loss == pytest.approx(run["trlx"]["q"], rel=1e-10) == run["snell"]["q"]

    v_loss = objectives.expectile_regression(case.values[:, :-1][case.acted], case.target_q[case.acted], hyper["tau"])
    assert float(v_loss) / count == pytest.approx(run["trlx"]["v"], rel=1e-10) == run["snell"]["v"]

    logged = objectives.supervised(case.actions[case.acted])
    cql = sum(objectives.cross_entropy(q[case.acted], logged).sum() for q in case.qs) / count
    assert float(cql) == pytest.approx(run["trlx"]["cql"], rel=1e-10)
    tempered = sum(objectives.cross_entropy(q[case.acted] / snell_hyper["cql_temp"], logged).sum() for q in case.qs)
    assert float(tempered) / count == pytest.approx(run["snell"]["cql"], rel=1e-10)

    advantages = case.target_q - case.values[:, :-1]
    temperature = 1 / hyper["beta"] if hyper["beta"] else math.inf
    rows = torch.arange(len(case.ids))[:, None]
    weights = objectives.advantage_weights(advantages, temperature, math.inf)[case.acted]
    at_actions = case.logits[rows, case.places][case.acted]
    awac = objectives.cross_entropy(at_actions, objectives.supervised(case.actions[case.acted], weights)).sum() / count
    assert float(awac) == pytest.approx(run["trlx"]["awac"], rel=1e-10)
    total = q_loss + float(v_loss) / count + hyper["cql_scale"] * float(cql) + hyper["awac_scale"] * float(awac)
    assert total == pytest.approx(run["trlx"]["loss"], rel=1e-10)

    clip = snell_hyper["clip_weight"] or math.inf
    everywhere = torch.full(case.ids.shape, snell_hyper["transition_weight"])
    for row in range(len(case.ids)):
        mine = case.acted[row].clone()
        mine[int(case.places[row].argmax()) + 1 :] = False  # this original's padding begins behind the last place
        everywhere[row, case.places[row][mine]] = objectives.advantage_weights(advantages[row][mine], temperature, clip)
    torch.testing.assert_close(everywhere, torch.tensor(run["snell"]["awac_token_weights"]), rtol=1e-10, atol=0)
    shown = case.attended[:, 1:].bool()
    fitted = objectives.supervised(case.ids[:, 1:][shown], everywhere[:, :-1][shown])
    awac = objectives.cross_entropy(case.logits[:, :-1][shown], fitted).sum() / shown.sum()
    assert float(awac) == pytest.approx(run["snell"]["awac"], rel=1e-10)

    # the CQL agent: identity layers make the golden Q-values the heads' outputs
    vocabulary = case.logits.shape[-1]
    layers = [(torch.eye(vocabulary), torch.zeros(vocabulary))] * len(case.target_qs)
    flat = [q.reshape(-1, vocabulary) for q in case.target_qs]
    best = objectives.max_min_q(flat, layers, chunk_size=3).view(case.actions.shape)
    last = case.acted.clone()
    last[:, :-1] &= ~case.acted[:, 1:]
    found = case.q_loss(functional.pad(best, (0, 1)), last, hyper["gamma"])
    assert found == pytest.approx(run["snell"]["cql_model_q"], rel=1e-10)


def test_expectile_by_hand_and_as_the_optimum():
    q = torch.tensor([0.0, 1.0, 4.0])
    assert objectives.expectile_regression(torch.full((3,), 2.0), q, 0.8).item() == pytest.approx(
        0.2 * 4 + 0.2 * 1 + 0.8 * 4
    )
    for tau in (0.5, 0.7, 0.99):
        v = torch.zeros(1, requires_grad=True)
        for _ in range(200):
            (slope,) = torch.autograd.grad(objectives.expectile_regression(v.expand(3), q, tau), v)
            v = (v - 0.3 * slope).detach().requires_grad_(True)
        above, below = (q - v.detach()).clamp_min(0).sum(), (v.detach() - q).clamp_min(0).sum()
        assert float(tau * above) == pytest.approx(float((1 - tau) * below))
    assert 3.9 < v.item() < 4.0


def test_token_q_and_its_gradient_are_those_of_the_whole_layer():
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(6, 5, generator=generator), torch.randn(9, 5, generator=generator)
    bias, actions = torch.randn(9, generator=generator), torch.tensor([0, 8, 3, 3, 1, 0])
    inputs = [tensor.requires_grad_(True) for tensor in (hidden, weight, bias)]
    found = objectives.token_q(*inputs, actions)
    expected = (hidden @ weight.T + bias).gather(1, actions[:, None])[:, 0]
    torch.testing.assert_close(found, expected)
    for mine, theirs in zip(
        torch.autograd.grad(found.square().sum(), inputs),
        torch.autograd.grad(expected.square().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_max_min_q_in_chunks(chunk):
    generator = torch.Generator().manual_seed(1)
    hidden = [torch.randn(7, 5, generator=generator) for _ in range(2)]
    layers = [(torch.randn(9, 5, generator=generator), torch.randn(9, generator=generator)) for _ in range(2)]
    first, second = (h @ w.T + b for h, (w, b) in zip(hidden, layers, strict=True))
    found = objectives.max_min_q(hidden, layers, chunk)
    expected = [
        max(min(float(a), float(b)) for a, b in zip(x, y, strict=True)) for x, y in zip(first, second, strict=True)
    ]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_weights_are_exponentials_up_to_the_clip():
    advantages = torch.tensor([-1.0, 0.0, 0.2, 5.0, 1e6], requires_grad=True)
    weights = objectives.advantage_weights(advantages, 0.5, 10.0)
    assert weights.tolist() == pytest.approx([math.exp(-2), 1.0, math.exp(0.4), 10.0, 10.0])
    assert not weights.requires_grad


def test_turns_by_hand():
    """Two turns of two tokens and one, then a bootstrap state; one turn of three, then padding."""
    ends = torch.tensor([[0, 1, 1, 0], [0, 0, 1, 0]]).bool()
    first, last = objectives.turn_bounds(ends)
    assert first[:, :3].tolist() == [[0, 0, 2], [0, 0, 0]]
    assert last[:, :3].tolist() == [[1, 1, 2], [2, 2, 2]]
    q = torch.tensor([[9.0, 1.0, 2.0, 9.0], [9.0, 9.0, 3.0, 9.0]])
    values = torch.tensor([[0.25, 9.0, 0.5, 9.0], [0.75, 9.0, 9.0, 9.0]])
    found = objectives.turn_advantages(q, values, ends)
    assert found[0, :3].tolist() == [0.75, 0.75, 1.5]
    assert found[1, :3].tolist() == [2.25, 2.25, 2.25]


class TestTabular:
    """Exact minimisers of the losses, by Newton's method on tables, on random problems with two-token actions."""

    def solve(self, mdp, values_of, steps=400):
        """Alternate Bellman targets and regression; ``values_of(q1, q2)`` gives V of both kinds of token states."""
        states, tokens = mdp.shape
        s, a, b, n = (
            x.ravel() for x in np.meshgrid(*map(np.arange, (states, tokens, tokens, states + 1)), indexing="ij")
        )
        probability = torch.tensor(
            mdp.behaviour_first[s, a] * mdp.behaviour_second[s, a, b] * mdp.transition[s, a, b, n]
        )
        ended = torch.tensor(n == states)
        where = torch.tensor(np.stack([s, states + s * tokens + a, np.where(n == states, 0, n)], axis=1))
        actions = torch.tensor(np.stack([a, b], axis=1))
        turn_end = torch.tensor([False, True, False]).expand(len(s), 3)
        rewards = torch.zeros(len(s), 3)
        rewards[:, 1] = torch.tensor(mdp.reward[s, a, b])
        mask = torch.stack([torch.ones_like(ended), torch.ones_like(ended), ~ended], dim=1)
        has_action = torch.tensor([True, True, False]).expand(len(s), 3)
        q = torch.full((states + states * tokens, tokens), 0.5)
        for _ in range(steps):
            values = values_of(q)[where]
            targets = objectives.bellman_targets(
                values, rewards, has_action, turn_end, ended[:, None] & turn_end, mask, mdp.return_range, mdp.gamma
            )
            table = q.clone().requires_grad_(True)
            picked = table[where[:, :2], actions]
            assert torch.equal(targets.valid[:, :2], torch.ones_like(picked, dtype=torch.bool))
            # rows weighted by their probability: their errors by its root
            root = probability.sqrt()[:, None]
            loss = objectives.q_regression([picked * root], targets.weights[:, :2] * root, targets.valid[:, :2])
            (slope,) = torch.autograd.grad(loss, table)
            mass = torch.zeros_like(q).index_put(
                (where[:, :2].reshape(-1), actions.reshape(-1)),
                probability[:, None].expand(-1, 2).reshape(-1),
                accumulate=True,
            )
            updated = q - slope / (2 * mass)
            if torch.allclose(updated, q, rtol=0, atol=1e-8):
                break
            q = updated
        return q

    @staticmethod
    def expectile(q, pi, tau):
        """Of each row, by bisection on the slope of the implemented loss."""
        low, high = q.amin(dim=1), q.amax(dim=1)
        root = pi.sqrt()  # the loss is homogeneous of degree two, so this weighs its terms with pi
        for _ in range(30):
            middle = ((low + high) / 2).requires_grad_(True)
            loss = objectives.expectile_regression(middle[:, None] * root, q * root, tau)
            (slope,) = torch.autograd.grad(loss, middle)
            low, high = torch.where(slope < 0, middle, low).detach(), torch.where(slope < 0, high, middle).detach()
        return (low + high) / 2

    @pytest.mark.parametrize("seed", range(3))
    def test_fixed_points(self, seed):
        mdp = dataclasses.replace(TabularMDP.random(seed), gamma=0.6)
        (states, tokens), (low, high) = mdp.shape, mdp.return_range
        pi = mdp.behaviour_table()[:, :-1].exp()

        def best(q):
            return objectives.max_min_q([q], [(torch.eye(tokens), torch.zeros(tokens))])

        # max backup: Q*
        cql = self.solve(mdp, best)
        optimum = torch.tensor((mdp.optimal_q() - low) / (high - low))
        torch.testing.assert_close(cql[states:].view(states, tokens, tokens), optimum, rtol=0, atol=1e-6)
        torch.testing.assert_close(cql[:states], optimum.amax(dim=2), rtol=0, atol=1e-6)

        # the expectile 1/2 is the mean: Q of the behaviour, which is what Monte-Carlo returns average to
        behaviour = self.solve(mdp, lambda q: self.expectile(q, pi, 0.5))
        value = mdp.policy_value(mdp.behaviour_first, mdp.behaviour_second)
        exact = torch.tensor((mdp.q_of(value) - low) / (high - low))
        torch.testing.assert_close(behaviour[states:].view(states, tokens, tokens), exact, rtol=0, atol=1e-6)

        # tau above it: between the two, and above the lower tau's
        middle = self.solve(mdp, lambda q: self.expectile(q, pi, 0.8))
        assert (middle >= behaviour - 1e-6).all() and (middle <= cql + 1e-6).all()
        assert (middle - behaviour).max() > 1e-3 < (cql - middle).max()
