"""Random tabular MDPs with two-token actions, solved exactly, and Q-SFT on them with tables for models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from qsft import objectives
from qsft.objectives import TargetDistribution


@dataclass
class TabularMDP:
    """S states, actions of two tokens out of A each, random transitions, rewards of any sign, and a chance to end.

    Token states are numbered: ``s`` before the first token, ``S + s * A + a1`` before the second.
    """

    behaviour_first: np.ndarray  # [S, A]
    behaviour_second: np.ndarray  # [S, A, A]
    transition: np.ndarray  # [S, A, A, S + 1], the last entry is the end of the episode
    reward: np.ndarray  # [S, A, A]
    gamma: float

    @classmethod
    def random(cls, seed: int) -> TabularMDP:
        rng = np.random.default_rng(seed)
        states, tokens = int(rng.integers(3, 8)), int(rng.integers(2, 5))
        transition = rng.dirichlet(np.full(states + 1, 0.3), size=(states, tokens, tokens))
        return cls(
            rng.dirichlet(np.full(tokens, 1.0), size=states),
            rng.dirichlet(np.full(tokens, 1.0), size=(states, tokens)),
            transition,
            rng.uniform(-2, 1, size=(states, tokens, tokens)),
            float(rng.uniform(0.5, 0.95)),
        )

    @property
    def shape(self) -> tuple[int, int]:
        return self.behaviour_first.shape  # type: ignore[return-value]

    @property
    def return_range(self) -> tuple[float, float]:
        return -2.0 / (1 - self.gamma), 1.0 / (1 - self.gamma)

    def q_of(self, value: np.ndarray) -> np.ndarray:
        """[S, A, A] action values given state values [S]."""
        return self.reward + self.gamma * self.transition[..., :-1] @ value

    def optimal_q(self) -> np.ndarray:
        value = np.zeros(self.shape[0])
        for _ in range(5000):
            value = self.q_of(value).max(axis=(1, 2))
        return self.q_of(value)

    def policy_value(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """State values of a policy of two tokens, by solving the linear system."""
        joint = first[:, :, None] * second
        flow = np.einsum("sab,sabt->st", joint, self.transition[..., :-1])
        return np.linalg.solve(np.eye(len(flow)) - self.gamma * flow, (joint * self.reward).sum(axis=(1, 2)))

    def behaviour_table(self) -> torch.Tensor:
        """[S + S A, V] token log-probabilities; V = A + 1, the last token is the dummy."""
        states, tokens = self.shape
        table = torch.full((states + states * tokens, tokens + 1), -torch.inf, dtype=torch.float64)
        table[:states, :-1] = torch.log(torch.tensor(self.behaviour_first))
        table[states:, :-1] = torch.log(torch.tensor(self.behaviour_second.reshape(states * tokens, tokens)))
        return table


def expected_step(mdp: TabularMDP, table: torch.Tensor, form: str, clip: bool = True) -> torch.Tensor:
    """The exact minimiser of the implemented loss, in expectation over the data, with targets from ``table``.

    Every transition is a row of one turn (two tokens) and the state after it, weighted by its probability. The gradient
    of the implemented loss gives the minimiser: for a cross-entropy against ``t`` it is ``p - t``.
    """
    states, tokens = mdp.shape
    behaviour = mdp.behaviour_table()
    s, a, b, n = (x.ravel() for x in np.meshgrid(*map(np.arange, (states, tokens, tokens, states + 1)), indexing="ij"))
    probability = torch.tensor(mdp.behaviour_first[s, a] * mdp.behaviour_second[s, a, b] * mdp.transition[s, a, b, n])
    ended = torch.tensor(n == states)
    token_states = torch.tensor(np.stack([s, states + s * tokens + a, np.where(n == states, 0, n)], axis=1))
    support_ids = torch.arange(tokens).expand(len(behaviour), tokens)
    support_logps = behaviour[:, :-1]
    picked = table.gather(1, support_ids)
    ratios = objectives.q_ratios(picked, support_logps) if clip else (picked - support_logps).exp()
    values = objectives.max_value(ratios, support_logps)[token_states]
    has_action = torch.tensor([True, True, False]).expand(len(s), 3)
    rewards = torch.zeros(len(s), 3, dtype=torch.float64)
    rewards[:, 1] = torch.tensor(mdp.reward[s, a, b])
    mask = torch.stack([torch.ones_like(ended), torch.ones_like(ended), ~ended], dim=1)
    turn_end = torch.tensor([False, True, False]).expand(len(s), 3)
    targets = objectives.bellman_targets(
        values, rewards, has_action, turn_end, ended[:, None] & turn_end, mask, mdp.return_range, mdp.gamma
    )
    weights = targets.weights
    if not clip:
        low, high = mdp.return_range
        following = torch.stack([values[:, 1], values[:, 2]], dim=1)
        last = rewards[:, 1] + torch.where(ended, 0.0, mdp.gamma * (low + following[:, 1] * (high - low)))
        weights = torch.stack([following[:, 0], (last - low) / (high - low), torch.zeros_like(last)], dim=1)
    valid = targets.valid
    actions = torch.stack([torch.tensor(a), torch.tensor(b), torch.zeros(len(s), dtype=torch.int64)], dim=1)[valid]
    where = token_states[valid]
    if form == "dummy":
        fitted = objectives.dummy(actions, weights[valid], tokens)
    elif form == "anchored":
        alive = 1 - table[where, tokens].exp()
        fitted = objectives.anchored(
            actions, weights[valid], alive, support_ids[where], support_logps[where], dummy_id=tokens
        )
    else:
        fitted = objectives.uniform(actions, weights[valid], tokens)
    each = probability[:, None].expand(-1, 3)[valid]
    fitted = TargetDistribution(
        fitted.ids, fitted.coefficients * each[:, None], None if fitted.rest is None else fitted.rest * each
    )
    vocabulary = tokens if form == "uniform" else tokens + 1
    logits = table[:, :vocabulary].clone().requires_grad_(True)
    hidden = torch.nn.functional.one_hot(where, len(table)).double()
    loss, _ = objectives.linear_cross_entropy(hidden, logits.T, None, fitted, chunk_size=97)
    loss.backward()
    assert logits.grad is not None
    visited = torch.zeros(len(table), dtype=torch.float64).index_add_(0, where, each)
    minimiser = torch.softmax(logits.detach(), dim=1) - logits.grad / visited[:, None]
    out = torch.full_like(table, -torch.inf)
    out[:, :vocabulary] = torch.log(minimiser.clamp_min(1e-300))
    return out


def fixed_point(mdp: TabularMDP, form: str, clip: bool = True, steps: int = 600) -> torch.Tensor:
    """Start at the behaviour and alternate targets and exact minimisation."""
    table = mdp.behaviour_table().clamp_min(-700)
    for _ in range(steps):
        updated = expected_step(mdp, table, form, clip)
        if torch.allclose(updated.exp(), table.exp(), rtol=0, atol=1e-13):
            break
        table = updated
    return table
