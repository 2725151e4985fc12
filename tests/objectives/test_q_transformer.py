"""Q-Transformer: exact on a toy of two dimensions, and against a naive reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from qsft.objectives.q_transformer import q_transformer_loss, q_transformer_targets

STATES, BINS, GAMMA = 4, 3, 0.8


@pytest.fixture(params=range(3))
def toy(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Next states ``[S, A, A]`` (``STATES`` is the end), rewards of both signs, and Q* by joint value iteration."""
    rng = np.random.default_rng(request.param)
    following = rng.integers(0, STATES + 1, (STATES, BINS, BINS))
    rewards = rng.uniform(-1, 1, (STATES, BINS, BINS))
    value = np.zeros(STATES + 1)
    for _ in range(500):
        q = rewards + GAMMA * value[following]
        value[:STATES] = q.max(axis=(1, 2))
    return following, rewards, q


def masks(terminal: np.ndarray) -> dict[str, Tensor]:
    """Of one action of two dimensions a row: [first, second, state after]."""
    rows, false = len(terminal), np.zeros(len(terminal), bool)
    columns = {
        "has_action": [~false, ~false, false],
        "turn_end": [false, ~false, false],
        "terminal": [false, terminal, false],
        "state_mask": [~false, ~false, ~terminal],
    }
    made = {name: torch.tensor(np.stack(parts, 1)) for name, parts in columns.items()}
    assert all(mask.shape == (rows, 3) for mask in made.values())
    return made


@pytest.mark.parametrize("steps", [1, 2])
def test_the_backup_by_dimension_is_exact(toy: tuple[np.ndarray, np.ndarray, np.ndarray], steps: int) -> None:
    following, rewards, optimal = toy
    s, a, b = (part.ravel() for part in np.indices(following.shape))
    after = following[s, a, b]
    reward = torch.zeros(len(s), 3, dtype=torch.float64)
    reward[:, 1] = torch.tensor(rewards[s, a, b])
    first, second = np.zeros((STATES, BINS)), np.zeros((STATES, BINS, BINS))
    for _ in range(400):
        value = np.append(first.max(1), 0.0)
        values = torch.tensor(np.stack([value[s], second[s, a].max(1), value[after]], 1))
        targets, valid = q_transformer_targets(values, reward, **masks(after == STATES), gamma=GAMMA, steps=steps)
        assert valid.tolist() == [[True, True, False]] * len(s)
        second[s, a, b] = targets[:, 1].numpy()
        # The logged second dimension may be poor: two steps ahead, the best of the logged continuations counts.
        first[:] = -np.inf
        np.maximum.at(first, (s, a), targets[:, 0].numpy())
    np.testing.assert_allclose(second, optimal, atol=1e-12)
    np.testing.assert_allclose(first, optimal.max(2), atol=1e-12)


def naive(values: Tensor, rewards: Tensor, ends: list[bool], gamma: float, steps: int, terminated: bool) -> list[float]:
    """Targets of one trajectory of ``len(ends)`` tokens, with the state after it where it was truncated."""
    targets = []
    for t in range(len(ends)):
        total, weight = 0.0, 1.0
        for k in range(t, min(t + steps, len(ends))):
            total += weight * float(rewards[k])
            weight *= gamma if ends[k] else 1.0
        last = min(t + steps, len(ends))
        if not (terminated and last == len(ends)):
            total += weight * float(values[last])
        targets.append(total)
    return targets


@pytest.mark.parametrize("terminated", [True, False])
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 20])
def test_steps_against_a_naive_reference(steps: int, terminated: bool) -> None:
    torch.manual_seed(0)
    tokens, width = 8, 11
    ends = [False, True] * 4
    values, rewards = torch.randn(1, width), torch.randn(1, width)
    rewards[0, ~torch.tensor([*ends, False, False, False])] = 0.0
    action = torch.arange(width)[None] < tokens
    end = torch.tensor([[*ends, False, False, False]])
    terminal = torch.zeros_like(action)
    terminal[0, tokens - 1] = terminated
    mask = torch.arange(width)[None] < tokens + (not terminated)
    args = (values, rewards, action, end, terminal, mask, 0.9, steps)
    targets, valid = q_transformer_targets(*args)
    expected = naive(values[0], rewards[0], ends, 0.9, steps, terminated)
    torch.testing.assert_close(targets[0, :tokens], torch.tensor(expected))
    assert (valid == action).all()
    assert (targets[0, tokens:] == 0).all()
    bound = torch.randn(1, width)
    bounded, _ = q_transformer_targets(*args, returns_to_go=bound)
    torch.testing.assert_close(bounded[0, :tokens], torch.maximum(targets, bound)[0, :tokens])


def test_a_truncated_trajectory_without_the_state_after_it_has_no_last_target() -> None:
    yes, no = torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 2, dtype=torch.bool)
    end = torch.tensor([[False, True]])
    targets, valid = q_transformer_targets(torch.tensor([[5.0, 7.0]]), torch.zeros(1, 2), yes, end, no, yes, 0.9)
    assert valid.tolist() == [[True, False]]
    assert targets.tolist() == [[7.0, 0.0]]


def test_the_loss_by_hand_and_its_minimum() -> None:
    q = torch.tensor([[0.5, 0.2, -0.1], [0.3, 0.9, 0.4], [9.0, 9.0, 9.0]], requires_grad=True)
    actions, valid = torch.tensor([0, 1, 2]), torch.tensor([True, True, False])
    targets, bins = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([3, 2, 3])
    loss, parts = q_transformer_loss(q, actions, targets, valid, low=-1.0, conservatism=0.5, bins=bins)
    td = 0.5 * (0.5**2 + 0.9**2) / 2
    conservative = 0.5 * ((1.2**2 + 0.9**2) / 2 + 1.3**2) / 2
    assert parts["td"].item() == pytest.approx(td)
    assert parts["conservative"].item() == pytest.approx(conservative)
    assert loss.item() == pytest.approx(td + 0.5 * conservative)
    loss.backward()
    assert q.grad is not None
    assert (q.grad[2] == 0).all() and q.grad[1, 2] == 0, "neither padding nor bins that the dimension does not have"
    best = torch.tensor([[1.0, -1.0, -1.0], [-1.0, 0.0, 9.0], [9.0, 9.0, 9.0]])
    assert q_transformer_loss(best, actions, targets, valid, low=-1.0, bins=bins)[0].item() == 0.0
