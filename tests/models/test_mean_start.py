"""The dummy token's row: every value at the mean to begin with, and nothing else changed."""

import json

import pytest
import torch

from qsft.data import Trajectory, TrajectoryTokenizer, Turn, write_trajectories
from qsft.data.batch import TrajectoryCollator
from qsft.errors import ConfigError
from qsft.models.mean_start import start_at_mean
from qsft.training import QSFTConfig, RunSettings, train
from tests.models import tiny

DUMMY = 0


@pytest.fixture
def batch():
    tokenizer = TrajectoryTokenizer(tiny.tokenizer())
    rows = [tokenizer(game) for game in tiny.trajectories(24, seed=5)]
    return TrajectoryCollator(pad_token_id=0)(rows)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
@pytest.mark.parametrize("value", [0.03, 0.6])
@torch.no_grad()
def test_values_start_at_the_mean_and_odds_stay(family, value, batch):
    model = tiny.make(family, seed=2)
    ids = batch["input_ids"]
    before = torch.log_softmax(model(input_ids=ids, attention_mask=batch["attention_mask"]).logits, -1)
    reported = start_at_mean(model, [batch], DUMMY, value)
    after = torch.log_softmax(model(input_ids=ids, attention_mask=batch["attention_mask"]).logits, -1)
    acted = batch["actions"] >= 0
    states = batch["state_positions"][acted]
    rows = torch.arange(len(ids))[:, None].expand(acted.shape)[acted]
    values = -torch.expm1(after[rows, states, DUMMY])
    assert float(values.mean()) == pytest.approx(value, rel=1e-3)
    assert reported == pytest.approx(value, rel=1e-3)
    if model.get_input_embeddings().weight is not model.get_output_embeddings().weight:
        # ratios of all other tokens are one number a state
        changed = (after - before)[rows, states][:, 1:]
        torch.testing.assert_close(changed, changed[:, :1].expand_as(changed), atol=1e-4, rtol=1e-4)


def test_not_with_the_uniform_form():
    with pytest.raises(ConfigError, match="start_at_mean: the uniform form has no dummy token"):
        QSFTConfig(form="uniform", start_at_mean=True, use_cpu=True)


@pytest.mark.parametrize("start", [False, True])
def test_stage_2_starts_there(start, tmp_path):
    """Without it the first logged value is near the top of the range, with it near the mean return of the data."""
    path = tmp_path / "data.jsonl"
    games = [
        Trajectory([Turn("user", "a\n"), Turn("assistant", "b\n", float(i % 10 == 0))], "terminated") for i in range(60)
    ]
    write_trajectories(path, games)
    stage = {"max_steps": 1, "per_device_train_batch_size": 60, "use_cpu": True, "logging_steps": 1, "save_steps": 1}
    likelihood = {**stage, "backup": "monte-carlo", "return_low": 0.0, "return_high": 1.0, "start_at_mean": start}
    model = {"model_type": "gpt2", **tiny.SIZES["gpt2"]}
    plan = RunSettings("qsft", str(path), model, behaviour=stage, likelihood=likelihood)
    train(plan, tmp_path / "run", tokenizer=tiny.tokenizer(), quiet=True)
    first = json.loads((tmp_path / "run" / "log-likelihood.jsonl").read_text().splitlines()[0])
    assert first["first_return"] == pytest.approx(0.1)
    assert first["first_value"] == pytest.approx(0.1, abs=0.01) if start else first["first_value"] > 0.8
