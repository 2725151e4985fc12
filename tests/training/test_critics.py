"""Runs of the value baselines: from data to a policy that plays, refused settings, and exact resumption."""

import json

import pytest
import torch

from qsft.data import load_trajectories, write_trajectories
from qsft.envs import symbols
from qsft.envs.collect import collect_to_file
from qsft.errors import ConfigError
from qsft.models import Extraction, ValueModel, load_causal_lm
from qsft.models.scratch import word_level_tokenizer
from qsft.policies import load_policy
from qsft.training import RunSettings, train
from qsft.training.critic_trainers import CRITICS, CriticTrainer
from qsft.training.trainer import SFTTrainer
from tests.models import tiny
from tests.training import test_resume as resuming

MODEL = {"model_type": "gpt2", **tiny.SIZES["gpt2"]}
STAGE = {"max_steps": 2, "per_device_train_batch_size": 4, "use_cpu": True, "logging_steps": 1, "save_steps": 1}
WITH_Q_HEADS = ("ilql", "cql", "q-transformer", "monte-carlo")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "data.jsonl"
    write_trajectories(path, tiny.trajectories(30, seed=5))
    return path


@pytest.fixture(scope="module")
def wordle(tmp_path_factory):
    """16 games, and a finished stage 1."""
    folder = tmp_path_factory.mktemp("wordle")
    collect_to_file("wordle", "mixture", 16, folder / "wordle.jsonl", 0, {"observation": "tiles"})
    tokenizer = word_level_tokenizer(symbols("wordle", observation="tiles"))
    plan = RunSettings("sft", folder / "wordle.jsonl", {**MODEL, "n_positions": 100}, format="text", behaviour=STAGE)
    return folder / "wordle.jsonl", tokenizer, train(plan, folder / "sft", tokenizer=tokenizer, quiet=True)


@pytest.mark.parametrize("method", CRITICS)
def test_wordle_from_data_to_play(method, wordle, tmp_path):
    path, tokenizer, sft = wordle
    plan = RunSettings(method, path, MODEL, format="text", critic=STAGE, behaviour_model=str(sft))
    out = train(plan, tmp_path / "run", tokenizer=tokenizer, quiet=True)
    assert not (out / "log-behaviour.jsonl").exists()
    lines = [json.loads(line) for line in (out / "log-critic.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert {"loss", "action_logp", "target_mean", "clipped_share"} <= lines[0].keys()
    games = list(load_trajectories(path))[:2]
    histories = [history for game in games for history in game.histories()]
    policy = load_policy(out)
    assert policy.temperature == 0
    assert policy.name == method
    replies = policy.act(histories)
    assert len(replies) == len(histories)
    assert all(reply.endswith("\n") for reply in replies)
    low, high = json.loads((out / "run.json").read_text())["return_range"]
    if method in WITH_Q_HEADS:
        assert isinstance(policy.model, ValueModel)
        assert policy.model.extraction.kind == "advantage"
        searched = policy.with_decoding(Extraction("advantage", beta=4.0), 0.0, beams=4)
        assert len(searched.act(histories)) == len(histories)
        (value,) = policy.q_values(histories[0], [replies[0]])
        assert low <= value.q <= high
        assert all(low <= v <= high for v in policy.state_values(histories))
    else:
        assert set(load_causal_lm(out).state_dict()) == set(load_causal_lm(sft).state_dict())
        assert load_policy(out, extraction=Extraction("product", support=0.3)).act(histories)
        with pytest.raises(ConfigError, match="needs a run with Q heads"):
            load_policy(out, extraction=Extraction("advantage"))


def test_both_stages_train_the_same_model_on(data, tmp_path):
    plan = RunSettings("ilql", data, MODEL, behaviour=STAGE, critic={**STAGE, "learning_rate": 1e-30})
    out = train(plan, tmp_path / "run", tokenizer=tiny.tokenizer(), quiet=True)
    behaviour = load_causal_lm(out / "behaviour").state_dict()
    kept = load_policy(out).model.language_model.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in behaviour.items())
    assert len((out / "log-behaviour.jsonl").read_text().splitlines()) == 2
    fresh = train(
        RunSettings("ilql", data, MODEL, behaviour=STAGE, critic={**STAGE, "learning_rate": 1e-30}, start_from="model"),
        tmp_path / "fresh",
        tokenizer=tiny.tokenizer(),
        quiet=True,
    )
    other = load_policy(fresh).model.language_model.state_dict()
    assert any(not torch.equal(other[name], value) for name, value in behaviour.items())


BAD = {
    "settings of another stage": ("ilql", {"likelihood": {"gamma": 0.9}}, "likelihood: ilql has no such stage"),
    "a critic where there is none": ("sft", {"critic": {"gamma": 0.9}}, "critic: sft has no such stage"),
    "not a mapping": ("cql", {"critic": None}, "critic: must hold settings"),
    "a name of another method": ("cql", {"critic": {"tau": 0.7}}, "critic: .*'tau'.*CQLConfig"),
    "tau": ("ilql", {"critic": {"tau": 1.0}}, "tau: 1.0 is outside"),
    "cql_scale": ("monte-carlo", {"critic": {"cql_scale": -1.0}}, "cql_scale: -1.0 must not be negative"),
    "target_rate": ("cql", {"critic": {"target_rate": 2.0}}, "target_rate: 2.0 is outside"),
    "trace": ("ilql", {"critic": {"trace": -0.1}}, "trace: -0.1 is outside"),
    "temperature": ("awr", {"critic": {"temperature": 0.0}}, "temperature: 0.0 must be positive"),
    "max_weight": ("archer-offline", {"critic": {"max_weight": 0.5}}, "max_weight: 0.5 must be at least 1"),
    "steps": ("q-transformer", {"critic": {"steps": 0}}, "steps: 0 must be at least 1"),
    "conservatism": ("q-transformer", {"critic": {"conservatism": -1.0}}, "conservatism: -1.0 must not be negative"),
    "a discount a token": ("q-transformer", {"critic": {"gamma_per": "token"}}, "discounts whole actions"),
    "discount of tokens": ("archer-offline", {"critic": {"gamma_per": "token"}}, "archer-offline values whole turns"),
    "range": ("awr", {"critic": {"return_low": 3.0, "return_high": 1.0}}, "return range"),
    "max_length": ("ilql", {"critic": {"max_length": 9}}, "critic: max_length: .* set it under behaviour"),
    "lora": ("ilql", {"lora": {"r": 2}}, "lora: ilql trains its heads with all weights"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_settings(case, data, tmp_path):
    method, changes, match = BAD[case]
    with pytest.raises(ConfigError, match=match) as raised:
        train(RunSettings(method, data, MODEL, **changes), tmp_path / "run", tokenizer=tiny.tokenizer(), quiet=True)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", ["ilql", "awr", "archer-offline"])
def test_a_killed_run_goes_on_to_the_bit(method, data, tmp_path, monkeypatch):
    """Weights, heads, target heads and every logged number, with dropout, after two kills of stage 2."""
    stage = {**resuming.STAGE, "max_steps": 6, "save_steps": 2}
    critic = dict(stage) | ({"target_rate": 0.1} if hasattr(CRITICS[method].config_class, "target_rate") else {})
    plan = RunSettings(method, data, resuming.MODEL, behaviour={**stage, "max_steps": 2}, critic=critic)
    original = SFTTrainer.compute_loss

    def dies_at(step):
        def compute_loss(self, *arguments, **keywords):
            if isinstance(self, CriticTrainer) and self.state.global_step == step:
                raise resuming.Killed
            return original(self, *arguments, **keywords)

        return lambda patched: patched.setattr(SFTTrainer, "compute_loss", compute_loss)

    resuming.interrupted(plan, tmp_path / "run", monkeypatch, dies_at(3))
    resuming.interrupted(plan, tmp_path / "run", monkeypatch, dies_at(5), resume=True)
    resuming.go(plan, tmp_path / "run", resume=True)
    resuming.assert_same_run(tmp_path / "run", resuming.go(plan, tmp_path / "reference"))
