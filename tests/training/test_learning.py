"""Q-SFT finds the rare good actions that imitation misses, on a game of two turns made for it."""

import numpy as np
import pytest

from qsft.data import Trajectory, Turn, write_trajectories
from qsft.models import Extraction
from qsft.policies import ModelPolicy, load_policy
from qsft.training import RunSettings, train
from tests.models import tiny

#: Both turns: what the data's author says, and how often. The good reply "h e" is rare.
HABIT = {"f a": 0.5, "f b": 0.2, "h e": 0.22, "h g": 0.08}
MODEL = {"model_type": "gpt2", **tiny.SIZES["gpt2"], "n_embd": 32}
STAGE = {
    "per_device_train_batch_size": 64,
    "use_cpu": True,
    "logging_steps": 10,
    "save_strategy": "no",
    "learning_rate": 3e-3,
}
STAGE |= {"logging_strategy": "no"}


def answer(first: str) -> str:
    """The observation after the first turn: the gate is open only behind the rare reply."""
    return "d\n" if first == "h e\n" else "c\n"


def reward(first: str, second: str, luck: float) -> float:
    """A coin that pays in three cases of ten, or, behind the gate, 1 for the rare reply and nothing for the usual."""
    if answer(first) == "c\n":
        return float(luck < 0.3)
    return float(second == "h e\n")


def expected_return(policy: ModelPolicy) -> float:
    """Of greedy play, exactly."""
    (first,) = policy.act([Trajectory([Turn("user", "go\n")])])
    (second,) = policy.act([Trajectory([Turn("user", "go\n"), Turn("assistant", first), Turn("user", answer(first))])])
    return 0.3 if answer(first) == "c\n" else reward(first, second, 1.0)


@pytest.fixture(scope="module")
def games(tmp_path_factory):
    rng = np.random.default_rng(0)
    episodes = []
    for _ in range(3000):
        first, second = (f"{rng.choice(list(HABIT), p=list(HABIT.values()))}\n" for _ in range(2))
        turns = [Turn("user", "go\n"), Turn("assistant", first, 0.0), Turn("user", answer(first))]
        episodes.append(
            Trajectory([*turns, Turn("assistant", second, reward(first, second, rng.uniform()))], "terminated")
        )
    path = tmp_path_factory.mktemp("games") / "games.jsonl"
    write_trajectories(path, episodes)
    return path


def run(plan, out):
    return train(plan, out, tokenizer=tiny.tokenizer(), quiet=True)


@pytest.mark.slow
def test_q_sft_reaches_the_optimum_where_imitation_does_not(games, tmp_path):
    sft = run(RunSettings("sft", games, MODEL, behaviour={**STAGE, "max_steps": 150}), tmp_path / "sft")
    assert expected_return(load_policy(sft, temperature=0.0)) == 0.3
    best = run(
        RunSettings("filtered-bc", games, MODEL, behaviour={**STAGE, "max_steps": 150}, filter_share=0.3),
        tmp_path / "filtered",
    )
    # half of the best games are lucky ones of the usual kind
    assert expected_return(load_policy(best, temperature=0.0)) == 0.3
    # the good half of the game is in other episodes than the good start: only bootstrapping joins them, so no trace
    likelihood = {**STAGE, "max_steps": 500, "target_rate": 0.1, "support_threshold": 0.05}
    likelihood |= {"form": "anchored", "trace": 0.0, "backup_beta": 30.0}
    plan = RunSettings("qsft", games, MODEL, likelihood=likelihood, behaviour_model=str(sft))
    out = run(plan, tmp_path / "qsft")
    extraction = Extraction("value", beta=64.0, support=0.05)
    policy = load_policy(out, extraction=extraction, temperature=0.0)
    assert expected_return(policy) == 1.0
    # the values: nearly 1 behind the gate and so for what opens it, the coin's 0.3 elsewhere; the mean of the data's games
    # through the gate is 0.22, below the coin
    start = Trajectory([Turn("user", "go\n")])
    gate, usual = policy.q_values(start, ["h e\n", "f a\n"])
    assert gate.q > 0.6
    assert usual.q == pytest.approx(0.3, abs=0.12)


@pytest.mark.slow
def test_ilql_opens_the_gate_and_monte_carlo_returns_do_not(games, tmp_path):
    sft = run(RunSettings("sft", games, MODEL, behaviour={**STAGE, "max_steps": 150}), tmp_path / "sft")
    stage = {**STAGE, "max_steps": 150, "learning_rate": 6e-3}
    for method, settings, expected in (("ilql", {"target_rate": 0.1, "tau": 0.9}, 1.0), ("monte-carlo", {}, 0.3)):
        plan = RunSettings(method, games, MODEL, critic={**stage, **settings}, behaviour_model=str(sft))
        policy = load_policy(run(plan, tmp_path / method), extraction=Extraction("advantage", beta=64.0))
        assert expected_return(policy) == expected, method
