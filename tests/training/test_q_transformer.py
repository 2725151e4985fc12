"""Q-Transformer through the real trainer: on a game whose Q* is known, Q is close to it and the greedy policy optimal."""

import itertools
import json

import numpy as np
import pytest
import torch

from qsft.data import Trajectory, TrajectoryCollator, Turn, write_trajectories
from qsft.models import ValueModel
from qsft.policies import load_policy
from qsft.training import QTransformerConfig, RunSettings, train
from qsft.training.critic_losses import QTransformerLoss
from tests.models import tiny
from tests.training.naive import turns

#: Bins of each of the two dimensions of an action; states are told by one letter.
BINS, STATES, GAMMA, SEED = "abc", "fgh", 0.5, 7
ACTIONS = [" ".join(pair) + "\n" for pair in itertools.product(BINS, repeat=2)]
#: It sees nothing but the step it is in: the value of a state is that of the same state at the start.
MODEL = {"model_type": "robot_transformer", "hidden_size": 32, "intermediate_size": 48, "layers": 1, "heads": 2}
STAGE = {"use_cpu": True, "save_strategy": "no", "logging_strategy": "no", "per_device_train_batch_size": 27}


def toy(seed: int, conservatism: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Next states ``[S, 9]`` (the last number is the end), rewards in [0, 1], and the Q of whole actions to be learnt.

    Where every action is as frequent, a bin of a dimension is taken in one case of three and is one of the three tokens
    that were not in two: ``1/3 (Q - w)^2 + c 2/3 Q^2 / 3`` is least at ``Q = w / (1 + 2 c / 3)``. The end of the turn
    always comes third, so its Q is its target.
    """
    rng = np.random.default_rng(seed)
    following = rng.integers(0, len(STATES) + 1, (len(STATES), len(ACTIONS)))
    rewards = rng.uniform(0, 1, following.shape).round(2)
    value = np.zeros(len(STATES) + 1)
    for _ in range(200):
        q = rewards + GAMMA * value[following]
        value[:-1] = q.max(axis=1) / (1 + 2 * conservatism / 3) ** 2
    return following, rewards, q


def transitions(following: np.ndarray, rewards: np.ndarray) -> list[Trajectory]:
    """Every state and action once, as an episode of one turn."""
    episodes = []
    for state, action in np.ndindex(following.shape):
        said = Turn("assistant", ACTIONS[action], float(rewards[state, action]))
        game, after = [Turn("user", STATES[state] + "\n"), said], following[state, action]
        if after < len(STATES):
            episodes.append(Trajectory([*game, Turn("user", STATES[after] + "\n")], "truncated"))
        else:
            episodes.append(Trajectory(game, "terminated"))
    return episodes


def test_trained_to_the_end_q_is_that_of_value_iteration_and_play_is_optimal(tmp_path):
    following, rewards, expected = toy(SEED, conservatism=0.1)
    optimal = toy(SEED, conservatism=0.0)[2]
    write_trajectories(tmp_path / "toy.jsonl", transitions(following, rewards))
    critic = {"max_steps": 200, "learning_rate": 1e-2, "target_rate": 0.5, "gamma": GAMMA, "conservatism": 0.1}
    plan = RunSettings(
        "q-transformer",
        tmp_path / "toy.jsonl",
        MODEL,
        behaviour={**STAGE, "max_steps": 1},
        critic={**STAGE, **critic, "muon": True, "return_low": 0.0, "return_high": 2.0},
    )
    policy = load_policy(train(plan, tmp_path / "run", tokenizer=tiny.tokenizer(), quiet=True))
    histories = [Trajectory([Turn("user", state + "\n")]) for state in STATES]
    found = np.array([[value.q for value in policy.q_values(history, ACTIONS)] for history in histories])
    np.testing.assert_allclose(found, expected, atol=0.05)
    assert policy.act(histories) == [ACTIONS[best] for best in optimal.argmax(axis=1)]
    # of a first dimension, the best that can follow it, less what its own conservatism takes
    first = policy.q_values(histories[0], [ACTIONS[0]])[0].tokens[0].q
    assert first == pytest.approx(expected[0, :3].max() / (1 + 2 * 0.1 / 3) ** 2, abs=0.05)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Nine trajectories: terminated, bootstrapped, cut after the agent's turn."""
    return [dict(row) for row in tiny.dataset(tmp_path_factory.mktemp("rows"), tiny.trajectories(9, seed=4))]


def module_of(folder, **settings):
    """The loss with heads of several units, targets apart from them; six of the agent's nine tokens and three more."""
    shared = {"output_dir": str(folder), "use_cpu": True, "report_to": "none", "return_low": -2.5, "return_high": 2.0}
    config = QTransformerConfig(**shared, **settings)
    model = ValueModel.with_heads(tiny.make("gpt2", seed=3), 13, True, False, action_tokens=[1, 2, *range(3, 12)])
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for head in (*model.q, *model.target_q):
            for parameter in head.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
            head.outer.bias += 0.3
    return QTransformerLoss(model.eval(), config, chunk_size=4)


def defined_loss(module, rows):
    """By plain loops over trajectories, tokens and bins."""
    s, model = module.settings, module.model
    total, known = torch.zeros(()), model.config.action_tokens
    tokens = 0
    for row in rows:
        ids, spans = row["input_ids"], turns(row)
        hidden = model.language_model.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        logps = torch.log_softmax(model.language_model(input_ids=torch.tensor([ids])).logits[0], dim=1)
        places = [t for start, end in spans for t in range(start, end)]
        ends = {end - 1: reward for (_, end), reward in zip(spans, row["turn_rewards"], strict=True)}
        after_last = [] if row["agent_mask"][-1] else [len(ids)]

        def value(place, hidden=hidden):
            best = max(float(min(head(hidden[place - 1])[a].detach() for head in model.target_q)) for a in known)
            return -2.5 + 4.5 * best

        to_go = 0.0
        for i in reversed(range(len(places))):
            t = places[i]
            tokens += 1
            to_go = ends.get(t, 0.0) + (s.gamma if t in ends else 1.0) * to_go
            total = total - s.behaviour_scale * logps[t - 1, ids[t]]
            cut_off = i == len(places) - 1 and not row["terminated"] and not after_last
            if cut_off:
                continue
            target, weight = 0.0, 1.0
            ahead = (places + after_last)[i : i + s.steps + 1]
            for place in ahead[: s.steps]:
                if place == len(ids) or (place == places[-1] and not row["terminated"] and not after_last):
                    target, weight = target + weight * value(place), 0.0
                    break
                target += weight * ends.get(place, 0.0)
                weight *= s.gamma if place in ends else 1.0
                if place == places[-1] and row["terminated"]:
                    weight = 0.0
            if weight:
                target += weight * value(ahead[-1])
            target = max(target, to_go) if s.lower_bound else target
            scaled = min(1.0, max(0.0, (target + 2.5) / 4.5))
            for head in model.q:
                q = head(hidden[t - 1])
                total = total + 0.5 * (q[ids[t]] - scaled) ** 2
                others = torch.stack([q[a] ** 2 for a in known if a != ids[t]])
                total = total + 0.5 * s.conservatism * others.mean()
    return total / tokens


CASES = {
    "one step": {"conservatism": 0.7, "lower_bound": False},
    "three steps, bounded": {"steps": 3, "gamma": 0.9},
    "with the language model": {"behaviour_scale": 0.5, "gamma": 0.9},
}


@pytest.mark.parametrize("case", CASES)
def test_a_batch_of_all_endings_is_the_definition(case, rows, tmp_path):
    module = module_of(tmp_path, **CASES[case])
    batch = TrajectoryCollator(0, module.settings.gamma)(rows)
    out = module(**batch)
    expected = defined_loss(module, rows)
    assert out["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    mine, theirs = (_gradients(loss, module.model) for loss in (out["loss"], expected))
    # without its own loss the language model's head has a gradient of zeros
    assert theirs.keys() <= mine.keys()
    for name, gradient in mine.items():
        torch.testing.assert_close(
            gradient, theirs.get(name, torch.zeros_like(gradient)), rtol=1e-3, atol=1e-6, msg=name
        )
    assert not any(name.startswith("target_q") for name in mine)


def _gradients(loss, model):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_only_the_tokens_of_the_agent_are_played(tmp_path):
    module = module_of(tmp_path)
    module.model.extraction = type(module.model.extraction)("advantage", eta=0.0)
    ids = torch.tensor([[1, 4, 5, 3]])
    with torch.no_grad():
        for head in module.model.target_q:
            head.outer.bias[12] = 9.0  # "go", which is never the agent's
        logits = module.model(input_ids=ids).logits[0, -1]
        q = module.model.read(ids).q[0, -1]
    assert logits.argmax() == q[:12].argmax()
    assert torch.isneginf(logits[12]) or logits[12] < -1e30


def test_bc_is_supervised_fine_tuning_by_another_name(tmp_path):
    write_trajectories(tmp_path / "data.jsonl", tiny.trajectories(12, seed=5))
    stage = {**STAGE, "max_steps": 2}
    runs = {}
    for method in ("sft", "bc"):
        plan = RunSettings(method, tmp_path / "data.jsonl", MODEL, behaviour=stage)
        runs[method] = train(plan, tmp_path / method, tokenizer=tiny.tokenizer(), quiet=True)
    weights = [(out / "model.safetensors").read_bytes() for out in runs.values()]
    assert weights[0] == weights[1]
    assert json.loads((runs["bc"] / "run.json").read_text())["settings"]["method"] == "bc"
    assert load_policy(runs["bc"]).name == "bc"
