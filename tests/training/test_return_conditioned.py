"""Return conditioning from data to play: it learns to do what is asked of it, and goes on after a kill."""

import json

import numpy as np
import pytest
import torch

from qsft.data import Trajectory, Turn, write_trajectories
from qsft.errors import ConfigError
from qsft.models import load_causal_lm
from qsft.policies import load_policy
from qsft.policies.decoding import with_setting
from qsft.training import RunSettings, train
from qsft.training.trainer import SFTTrainer
from tests.models import tiny

MODEL = {"model_type": "gpt2", **tiny.SIZES["gpt2"]}
STAGE = {"per_device_train_batch_size": 8, "use_cpu": True, "logging_steps": 2, "save_steps": 4}
#: the agent's letter decides the reward
WORTH = {"a": 0.0, "b": 1.0, "c": 2.0}


def say(letter):
    return Turn("assistant", letter + "\n", WORTH[letter])


def letters_game(path, rows=256, seed=0):
    """Two turns; the letters are drawn evenly, so that only the return tokens tell which comes next."""
    rng = np.random.default_rng(seed)
    games = []
    for _ in range(rows):
        first, second = (str(x) for x in rng.choice(list(WORTH), 2))
        games.append(Trajectory([Turn("user", "go\n"), say(first), Turn("user", "h\n"), say(second)], "terminated"))
    write_trajectories(path, games)
    return path


def go(plan, out, resume=False):
    return train(plan, out, tokenizer=tiny.tokenizer(), resume=resume, quiet=True)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rcsl")
    stage = {**STAGE, "num_train_epochs": 6, "learning_rate": 2e-2, "save_strategy": "no", "logging_strategy": "no"}
    plan = RunSettings("return-conditioned", letters_game(folder / "data.jsonl"), MODEL, behaviour=stage)
    return go(plan, folder / "run")


def test_it_does_what_is_asked(learnt):
    start = Trajectory([Turn("user", "go\n")])
    for target in (0.0, 4.0):  # only one way leads there
        policy = load_policy(learnt, target_return=target)
        letter = "a" if target == 0 else "c"
        assert policy.act([start]) == [letter + "\n"]
        assert policy.act([Trajectory([*start.turns, say(letter), Turn("user", "h\n")])]) == [letter + "\n"]
    # 2 are still wanted, 1 is, 0 are: the reward received counts
    for first, second in (("a", "c"), ("b", "b"), ("c", "a")):
        past = Trajectory([*start.turns, say(first), Turn("user", "h\n")])
        assert load_policy(learnt, target_return=2.0).act([past]) == [second + "\n"]


def test_unless_told_otherwise_it_wants_the_best(learnt):
    best = load_policy(learnt)
    assert (best.name, best.target_return) == ("return-conditioned", 4.0)
    start = Trajectory([Turn("user", "go\n")])
    assert best.act([start]) == ["c\n"]
    worst = best.with_decoding(best.extraction, 0.0, target_return=0.0)
    assert [worst.act([start]), best.act([start])] == [["a\n"], ["c\n"]]
    # the same in a study's grid, where a setting without it keeps the run's
    assert with_setting(best, {"temperature": 0, "target_return": 0.0}).act([start]) == ["a\n"]
    assert with_setting(best, {"temperature": 0}).act([start]) == ["c\n"]


def test_a_return_token_is_never_said(learnt):
    """Whatever the model thinks: with its head turned round, they would be the likeliest of all."""
    policy = load_policy(learnt, temperature=1.0)
    head = policy.model.likelihood.get_output_embeddings()
    returns = policy.tokenizer.returns.ids.tolist()
    bias = torch.zeros(head.weight.shape[0])
    bias[returns] = 50.0
    head.register_forward_hook(lambda module, inputs, output: output + bias)
    for reply in policy.act([Trajectory([Turn("user", "go\n")])] * 64):
        assert "return" not in reply


def test_what_cannot_be_asked(learnt, tmp_path):
    with pytest.raises(ConfigError, match="target_return: 5 is outside of the returns-to-go in the data, 0 to 4"):
        load_policy(learnt, target_return=5.0)
    plan = RunSettings("sft", tmp_path / "d.jsonl", MODEL, behaviour={**STAGE, "max_steps": 4})
    letters_game(tmp_path / "d.jsonl", 16)
    go(plan, tmp_path / "sft")
    with pytest.raises(ConfigError, match="only a return-conditioned policy"):
        load_policy(tmp_path / "sft", target_return=1.0)
    write_trajectories(tmp_path / "same.jsonl", [Trajectory([Turn("user", "a\n"), say("b")], "terminated")] * 4)
    with pytest.raises(ConfigError, match="every return-to-go in the data is the same"):
        go(RunSettings("return-conditioned", tmp_path / "same.jsonl", MODEL), tmp_path / "same")
    assert not (tmp_path / "same").exists()


def test_it_goes_on_from_a_supervised_run(learnt, tmp_path):
    """Its vocabulary grows; what it knew stays."""
    data = letters_game(tmp_path / "d.jsonl", 16)
    sft = go(RunSettings("sft", data, MODEL, behaviour={**STAGE, "max_steps": 4}), tmp_path / "sft")
    still = {**STAGE, "max_steps": 4, "learning_rate": 0.0}
    plan = RunSettings("return-conditioned", data, MODEL, behaviour=still, behaviour_model=str(sft))
    run = go(plan, tmp_path / "run")
    before, after = (load_causal_lm(folder).get_input_embeddings().weight for folder in (sft, run))
    assert torch.equal(after[: len(before)], before)
    assert len(after) == len(before) + 5  # returns-to-go 0 to 4


class Killed(BaseException):
    pass


@pytest.mark.parametrize("lora", [None, {"r": 2, "target_modules": ["c_attn"]}])
def test_resume(tmp_path, monkeypatch, lora):
    """The same files as those of a run that was never interrupted; with LoRA the return tokens are trained too."""
    data = letters_game(tmp_path / "data.jsonl", 64)
    stage = {**STAGE, "max_steps": 8, "learning_rate": 1e-2}
    plan = RunSettings("return-conditioned", data, MODEL, behaviour=stage, lora=lora)
    whole = go(plan, tmp_path / "whole")
    original = SFTTrainer.compute_loss

    def compute_loss(self, *arguments, **keywords):
        if self.state.global_step == 6:
            raise Killed
        return original(self, *arguments, **keywords)

    with monkeypatch.context() as patched:
        patched.setattr(SFTTrainer, "compute_loss", compute_loss)
        with pytest.raises(Killed):
            go(plan, tmp_path / "killed")
    killed = go(plan, tmp_path / "killed", resume=True)
    for name in ("model.safetensors", "run.json", "tokenizer.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    record = json.loads((whole / "run.json").read_text())
    assert record["trajectories"]["return_levels"] == [0.0, 1.0, 2.0, 3.0, 4.0]
    rows = load_causal_lm(whole).get_input_embeddings().weight[13:18]
    assert (rows[1:] - rows[0]).abs().amax(dim=1).min() > 1e-3
