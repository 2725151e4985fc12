"""What optimiser, schedule, data loader or trainer refuse, and what no part reads, is one line before stage 1."""

import math

import pytest
import torch

from qsft.data import write_trajectories
from qsft.errors import ConfigError, DataError
from qsft.training import QSFTConfig, SFTConfig, stages, train
from qsft.training.runs import unread_settings
from tests.models import tiny
from tests.training.test_runs import STAGE, go, refused, settings

CHECKPOINTING = "gradient_checkpointing_kwargs"
WORKERS = "dataloader_num_workers"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "data.jsonl"
    write_trajectories(path, tiny.trajectories(12, seed=5))
    return path


REFUSED = {
    "a schedule's missing rate": ({"lr_scheduler_type": "cosine_with_min_lr"}, "lr_scheduler_type: cosine_with_min_lr: One"),
    "a schedule's unknown name": ({"lr_scheduler_kwargs": {"foo": 1}}, r"lr_scheduler_kwargs: {'foo': 1}: .*'foo'"),
    "a schedule's wrong value, read later": (
        {"lr_scheduler_type": "cosine", "warmup_steps": 1, "lr_scheduler_kwargs": {"num_cycles": "x"}},
        "lr_scheduler_type: cosine, lr_scheduler_kwargs: {'num_cycles': 'x'}, .*could not convert",
    ),
    "a warmup without an end": ({"warmup_steps": math.inf}, "warmup_steps: inf: "),
    "beta": ({"adam_beta1": 1.5}, "adam_beta1: 1.5: Invalid beta parameter"),
    "beta with Muon": ({"adam_beta2": 1.5, "muon": True}, "adam_beta2: 1.5: Invalid beta parameter"),
    "decay with Muon": ({"weight_decay": -1.0, "muon": True}, "weight_decay: -1.0: "),
    "epsilon": ({"adam_epsilon": -1.0}, "adam_epsilon: -1.0: Invalid epsilon value"),
    "an optimiser's arguments": ({"optim": "sgd", "optim_args": "momentum"}, "optim: sgd, optim_args: momentum: "),
    "no GaLore": ({"optim": "galore_adamw"}, "optim: galore_adamw: You need to install `galore_torch`"),
    "no bitsandbytes": ({"optim": "adamw_bnb_8bit"}, "optim: adamw_bnb_8bit: You need to install `bitsandbytes`"),
    "fewer than no workers": ({WORKERS: -1}, "dataloader_num_workers: -1: num_workers option should be non-negative"),
    "no prefetching": ({WORKERS: 1, "dataloader_prefetch_factor": 0}, "dataloader_prefetch_factor: 0 must be at least 1"),
    "workers that stay": ({"dataloader_persistent_workers": True}, "dataloader_persistent_workers: True: "),
    "endless epochs": ({"num_train_epochs": math.inf, "max_steps": -1}, "num_train_epochs: inf must be above 0 and finite"),
    "checkpointing": (
        {"gradient_checkpointing": True, CHECKPOINTING: {"use_reentrent": False}},
        "gradient_checkpointing_kwargs: {'use_reentrent': False}: Unexpected keyword arguments: use_reentrent",
    ),
    "checkpointing no layer": (
        {"gradient_checkpointing": True, CHECKPOINTING: {"every_n_layers": 0}},
        "gradient_checkpointing_kwargs: {'every_n_layers': 0}: ",
    ),
    "sampling": (
        {"train_sampling_strategy": "group_by_lenght"},
        "train_sampling_strategy: 'group_by_lenght' is unknown; use one of 'random', .*'group_by_length'",
    ),
    "Muon and another": ({"muon": True, "optim": "adafactor"}, "optim: muon is the optimiser and does not read it"),
    "Muon's arguments": ({"muon": True, "optim_args": "momentum=0.9"}, "optim_args: muon is the optimiser"),
    "a share to log": ({"logging_steps": 0.25, "save_steps": 0.5}, "logging_steps: 0.25 is no number of steps; give"),
    "a share to save": ({"save_steps": 0.5}, "save_steps: 0.5 is no number of steps; give a whole one"),
    "half a step to log": ({"logging_steps": 1.5, "save_steps": 3}, "logging_steps: 1.5 is no number of steps"),
    "evaluation": ({"eval_strategy": "epoch"}, "eval_strategy: a run has no eval_dataset"),
    "too few rows": (
        {"dataloader_drop_last": True, "per_device_train_batch_size": 13},
        "dataloader_drop_last: nothing is left of 12 rows in batches of 13",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_stage_one(case, data, tmp_path, monkeypatch):
    changes, match = REFUSED[case]
    trained = []
    monkeypatch.setattr(stages.SFTTrainer, "train", lambda *a, **k: trained.append(1))
    plan = settings(data, likelihood={**STAGE, **changes})
    refused(tmp_path / "run", ConfigError, f"^likelihood: {match}", lambda: go(plan, tmp_path / "run"))
    assert not trained


@pytest.mark.parametrize("method", ["sft", "ilql"])
def test_rows_of_other_methods(method, data, tmp_path):
    stage = {**STAGE, "dataloader_drop_last": True, "per_device_train_batch_size": 13}
    plan = settings(data, method, **({"behaviour": stage} if method == "sft" else {"critic": stage}))
    name = "behaviour" if method == "sft" else "critic"
    refused(tmp_path / "run", ConfigError, f"^{name}: dataloader_drop_last", lambda: go(plan, tmp_path / "run"))


def test_settings_of_a_stage_that_a_given_model_replaces_are_not_read(data, tmp_path):
    first = go(settings(data, "sft"), tmp_path / "sft")
    stage = {**STAGE, "dataloader_drop_last": True, "per_device_train_batch_size": 13}
    go(settings(data, behaviour_model=str(first), behaviour=stage), tmp_path / "run")


WORKS = [
    {"lr_scheduler_type": "polynomial", "warmup_steps": 1000},
    {"lr_scheduler_type": "polynomial", "warmup_steps": 10, "max_steps": 5},
    {"lr_scheduler_type": "inverse_sqrt", "warmup_steps": 0.1},
    {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": 10}},
    {"optim": "adafactor", "learning_rate": 0.0},
    {"optim": "sgd", "optim_args": "momentum=0.9"},
    {"muon": True, "optim": "adamw_torch_fused", "logging_steps": 5.0},
    {"num_train_epochs": math.inf, "max_steps": 5},
    {"gradient_checkpointing": True, CHECKPOINTING: {"use_reentrant": True, "every_n_layers": 2, "offload": False}},
    {"train_sampling_strategy": "batch_rebalance", WORKERS: 2, "dataloader_persistent_workers": True},
]


@pytest.mark.parametrize("given", WORKS)
def test_what_works_is_taken_and_draws_no_random_numbers(given, tmp_path):
    before = torch.get_rng_state()
    SFTConfig(output_dir=str(tmp_path), use_cpu=True, **given)
    assert torch.equal(torch.get_rng_state(), before)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", ["sft", "bc", "filtered-bc", "return-conditioned"])
def test_a_start_that_no_stage_has(method, data):
    with pytest.raises(ConfigError, match=f"start_from: {method} does not read it; remove it"):
        settings(data, method, start_from="model")
    assert unread_settings(method, {"start_from": "model"}) == ["start_from"]
    assert not unread_settings("ilql", {"start_from": "model"})


def test_the_trainer_s_own_refusal_is_one_line_and_leaves_nothing(data, tmp_path):
    """Its number of steps is computed from the data's."""
    plan = settings(data, behaviour={**STAGE, "max_steps": -1, "num_train_epochs": 1e308})
    refused(tmp_path / "run", ConfigError, "^behaviour: cannot convert float inf", lambda: go(plan, tmp_path / "run"))


class Failing:
    """Makes the loss of a stage fail once so many losses were computed."""

    def __init__(self, monkeypatch, trainer, error, after=0):
        self.left, self.error, self.compute = after, error, trainer.compute_loss
        monkeypatch.setattr(trainer, "compute_loss", lambda *a, **k: self.loss(*a, **k))

    def loss(self, *arguments, **keywords):
        if self.left == 0:
            raise self.error
        self.left -= 1
        return self.compute(*arguments, **keywords)


ERRORS = [ValueError, TypeError, OverflowError, ImportError, ConfigError, DataError]


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_before_the_first_step_leaves_nothing(kind, data, tmp_path, monkeypatch):
    Failing(monkeypatch, stages.SFTTrainer, kind("no such thing\nand more" if kind in ERRORS[:4] else "no such thing"))
    told = DataError if kind is DataError else ConfigError
    match = "^no such thing$" if kind is DataError else "^behaviour: no such thing$"
    refused(tmp_path / "run", told, match, lambda: go(settings(data), tmp_path / "run"))


@pytest.mark.parametrize("kind", ERRORS[:3])
def test_an_error_after_the_first_step_stays_as_it_is(kind, data, tmp_path, monkeypatch):
    plan, out = settings(data, "sft"), tmp_path / "run"
    with monkeypatch.context() as patched:
        Failing(patched, stages.SFTTrainer, error := kind("a bug\nof ours"), after=1)
        with pytest.raises(kind) as raised:
            go(plan, out)
    assert raised.value is error
    assert (go(plan, out, resume=True) / "model.safetensors").exists()


def test_stage_one_outlives_an_error_of_stage_two(data, tmp_path, monkeypatch):
    plan, out = settings(data), tmp_path / "run"
    with monkeypatch.context() as patched:
        Failing(patched, stages.QSFTTrainer, ValueError("no such thing"))
        with pytest.raises(ConfigError, match="^likelihood: no such thing$"):
            go(plan, out)
    mended = settings(data, behaviour_model=str(out / "behaviour"))
    assert (go(mended, tmp_path / "mended") / "likelihood").exists()
    assert (go(plan, out, resume=True) / "likelihood").exists()


def test_a_copied_model_does_not_block_the_folder(data, tmp_path, monkeypatch):
    first = go(settings(data, "sft"), tmp_path / "sft")
    plan = settings(data, behaviour_model=str(first))
    Failing(monkeypatch, stages.QSFTTrainer, ValueError("no such thing"))
    refused(tmp_path / "run", ConfigError, "^likelihood: no such thing$", lambda: go(plan, tmp_path / "run"))


class BadRows:
    def __call__(self, rows):
        raise ValueError("rows that are none")


def test_an_error_in_a_worker_is_its_own_line(data, tmp_path, monkeypatch):
    monkeypatch.setattr(stages.SFTTrainer, "make_collator", lambda *a: BadRows())
    plan = settings(data, "sft", behaviour={**STAGE, WORKERS: 1})
    refused(
        tmp_path / "run", ConfigError, "^behaviour: ValueError: rows that are none$", lambda: go(plan, tmp_path / "run")
    )


def test_trainers_alone_refuse_too(tmp_path):
    with pytest.raises(ConfigError, match="^adam_beta1: 1.5: Invalid beta"):
        QSFTConfig(output_dir=str(tmp_path), adam_beta1=1.5)


def test_the_mended_command_runs(data, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(ConfigError):
        train(settings(data, behaviour={**STAGE, "adam_epsilon": -1.0}), out, tokenizer=tiny.tokenizer(), quiet=True)
    assert (go(settings(data), out) / "likelihood").exists()
