"""The critics' losses on whole trajectories are the definitions', turn by turn and token by token, gradients too."""

import math

import pytest
import torch

from qsft.data import TrajectoryCollator
from qsft.models import ValueModel
from qsft.training import ArcherConfig, AWRConfig, CQLConfig, ILQLConfig, MonteCarloConfig
from qsft.training.critic_trainers import CRITICS
from tests.models import tiny
from tests.training.naive import turns
from tests.training.test_losses import assert_same_gradients

V = 13
RANGE = (-2.5, 2.0)
SHARED = {"return_low": RANGE[0], "return_high": RANGE[1], "use_cpu": True, "report_to": "none"}
CONFIGS = {
    "monte-carlo": (MonteCarloConfig, {"cql_scale": 0.3, "behaviour_scale": 0.5, "gamma": 0.9}),
    "cql": (CQLConfig, {"cql_scale": 0.3, "gamma": 0.9, "gamma_per": "token"}),
    "ilql": (ILQLConfig, {"cql_scale": 0.1, "tau": 0.8, "gamma": 0.9}),
    "ilql with a trace": (ILQLConfig, {"cql_scale": 0.0, "trace": 0.6, "gamma": 0.9}),
    "awr": (AWRConfig, {"temperature": 0.3, "max_weight": 1.5, "gamma": 0.9}),
    "archer-offline": (ArcherConfig, {"tau": 0.8, "temperature": 0.5, "max_weight": 1.2, "gamma": 0.9}),
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Nine trajectories: terminated, bootstrapped, cut after the agent's turn."""
    return [dict(row) for row in tiny.dataset(tmp_path_factory.mktemp("rows"), tiny.trajectories(9, seed=4))]


def module_of(case, folder):
    """The loss with heads of several units, targets apart from them."""
    trainer = CRITICS[case.split(" ")[0]]
    kind, settings = CONFIGS[case]
    config = kind(output_dir=str(folder), **SHARED, **settings)
    outputs = {"tokens": V, "turns": 1, "none": 0}[trainer.q_values]
    model = ValueModel.with_heads(tiny.make("gpt2", seed=3), outputs, trainer.target_heads, trainer.state_value)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for head in (*model.q, *model.target_q, *([model.v] if model.v is not None else [])):
            for parameter in head.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
            head.outer.bias += 0.3
    return trainer.loss_class(model.eval(), config, chunk_size=4)


class Definition:
    """One trajectory in plain loops, from one pass over its tokens."""

    def __init__(self, module, row):
        self.model, self.settings, self.row = module.model, module.settings, row
        self.ids = row["input_ids"]
        self.spans = turns(row)
        self.actions = [t for start, end in self.spans for t in range(start, end)]
        self.ends = {end - 1: reward for (_, end), reward in zip(self.spans, row["turn_rewards"], strict=True)}
        # what follows an action: the next action, or the end of a truncated row's last observation
        self.open = not row["terminated"] and not row["agent_mask"][-1]
        batch = torch.tensor([self.ids])
        self.hidden = self.model.language_model.base_model(input_ids=batch).last_hidden_state[0]
        self.logps = torch.log_softmax(self.model.language_model(input_ids=batch).logits[0], dim=1)

    def scaled(self, value):
        return (value - RANGE[0]) / (RANGE[1] - RANGE[0])

    def returns(self):
        """Scaled return-to-go of each action."""
        found, following = {}, 0.0
        for t in reversed(self.actions):
            discount = self.settings.gamma if t in self.ends or self.settings.gamma_per == "token" else 1.0
            following = self.ends.get(t, 0.0) + discount * following
            found[t] = self.scaled(following)
        return found

    def bellman(self, value, trace=0.0):
        """Target of each action; ``value(place)`` is the scaled value of the state before a place."""
        found = {}
        for i in reversed(range(len(self.actions))):
            t, last = self.actions[i], i == len(self.actions) - 1
            discount = self.settings.gamma if t in self.ends or self.settings.gamma_per == "token" else 1.0
            if last and self.row["terminated"]:
                after = 0.0
            elif last and not self.open:
                continue
            else:
                place = len(self.ids) if last else self.actions[i + 1]
                following = value(place)
                if not last and place in found:
                    following = (1 - trace) * following + trace * found[place]
                after = discount * (RANGE[0] + following * (RANGE[1] - RANGE[0]))
            found[t] = min(1.0, max(0.0, self.scaled(self.ends.get(t, 0.0) + after)))
        return found

    def q(self, heads, place, of):
        return [head(self.hidden[place - 1])[of] for head in heads]

    def v(self, place):
        return self.model.v(self.hidden[place - 1])[0]

    def expectile(self, v, q):
        weight = self.settings.tau if q >= float(v) else 1 - self.settings.tau
        return weight * (q - v) ** 2

    def token_heads(self):
        """monte-carlo, cql and ilql: the sum over actions."""
        s, total, ilql = self.settings, 0.0, isinstance(self.settings, ILQLConfig)
        if ilql:
            targets = self.bellman(lambda place: float(self.v(place)), s.trace)
        elif isinstance(s, CQLConfig):
            targets = self.bellman(
                lambda place: max(float(min(self.q(self.model.target_q, place, a))) for a in range(V))
            )
        else:
            targets = self.returns()
        for t in self.actions:
            a = self.ids[t]
            for head in self.model.q:
                outputs = head(self.hidden[t - 1])
                if t in targets:
                    total = total + (outputs[a] - targets[t]) ** 2
                total = total - s.cql_scale * torch.log_softmax(outputs, dim=0)[a]
            if ilql:
                total = total + self.expectile(self.v(t), float(min(self.q(self.model.target_q, t, a))))
            total = total - s.behaviour_scale * self.logps[t - 1, a]
        return total

    def weight(self, advantage):
        return min(math.exp(advantage / self.settings.temperature), self.settings.max_weight)

    def awr(self):
        total = 0.0
        for t, g in self.returns().items():
            total = total + (self.v(t) - g) ** 2
            total = total - self.weight(g - float(self.v(t))) * self.logps[t - 1, self.ids[t]]
        return total

    def archer(self):
        """The critic's sum over turns and the actor's over tokens."""
        critic, actor = 0.0, 0.0
        targets = self.bellman(lambda place: float(self.v(place)))
        for start, end in self.spans:
            said = self.hidden[end - 1]
            if end - 1 in targets:
                critic = critic + sum((head(said)[0] - targets[end - 1]) ** 2 for head in self.model.q)
            q = min(float(head(said)[0]) for head in self.model.target_q)
            critic = critic + self.expectile(self.v(start), q)
            for t in range(start, end):
                actor = actor - self.weight(q - float(self.v(start))) * self.logps[t - 1, self.ids[t]]
        return critic, actor


def expected_loss(module, rows):
    rows = [Definition(module, row) for row in rows]
    tokens = sum(len(row.actions) for row in rows)
    if isinstance(module.settings, ArcherConfig):
        critics, actors = zip(*(row.archer() for row in rows), strict=True)
        return sum(critics) / sum(len(row.spans) for row in rows) + sum(actors) / tokens
    if isinstance(module.settings, AWRConfig):
        return sum(row.awr() for row in rows) / tokens
    return sum(row.token_heads() for row in rows) / tokens


def gradients(loss, model):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_batch_of_all_endings_is_the_definition(rows, case, tmp_path):
    module = module_of(case, tmp_path)
    settings = module.settings
    batch = TrajectoryCollator(0, settings.gamma, settings.gamma_per)(rows)
    out = module(**batch)
    expected = expected_loss(module, rows)
    assert out["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    mine, theirs = gradients(out["loss"], module.model), gradients(expected, module.model)
    assert_same_gradients(mine, theirs)
    assert not any(name.startswith("target_q") for name in mine)


@pytest.mark.parametrize("case", ["ilql", "awr", "archer-offline"])
def test_rewards_and_heads_matter(rows, case, tmp_path):
    module = module_of(case, tmp_path)
    batch = TrajectoryCollator(0, 0.9, "turn")(rows)
    richer = TrajectoryCollator(0, 0.9, "turn")(
        [{**row, "turn_rewards": [r + 0.3 for r in row["turn_rewards"]]} for row in rows]
    )
    assert module(**batch)["loss"].item() != pytest.approx(module(**richer)["loss"].item(), rel=1e-4)
