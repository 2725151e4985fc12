"""A run that was killed anywhere goes on exactly as if it had not been."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
from transformers import Trainer

from qsft.data import write_trajectories
from qsft.errors import CheckpointError
from qsft.models.support import SupportRule
from qsft.training import RunSettings, runs, stages, train
from qsft.training.trainer import QSFTTrainer, SFTTrainer
from tests.models import tiny

RATES = ("tokens_per_second",)
STAGE = {
    "num_train_epochs": 3,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "logging_steps": 2,
    "save_steps": 4,
    "use_cpu": True,
    "learning_rate": 1e-3,
    "warmup_steps": 3,
}
#: 30 trajectories, 8 a step: 4 steps an epoch of which the last is smaller, 12 steps a stage.
LAST = 12
MODEL = {"model_type": "gpt2", **tiny.SIZES["gpt2"], "resid_pdrop": 0.2, "embd_pdrop": 0.1, "attn_pdrop": 0.1}
VARIANTS = {
    "full": {},
    "lora": {"lora": {"r": 2, "lora_dropout": 0.2, "target_modules": ["c_attn"]}},
    "monte carlo first": {"likelihood": {**STAGE, "monte_carlo_first": 0.6, "target_rate": 0.1}},
    "muon": {name: {**STAGE, "muon": True, "weight_decay": 0.1} for name in ("behaviour", "likelihood")},
    "ends inside an epoch": {
        name: {**STAGE, "max_steps": 10, "lr_scheduler_type": "constant"} for name in ("behaviour", "likelihood")
    },
    "by epochs": {
        name: {**STAGE, "save_strategy": "epoch", "logging_strategy": "epoch"} for name in ("behaviour", "likelihood")
    },
}


class Killed(BaseException):
    """Like a kill: nothing that handles ordinary errors sees it."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "data.jsonl"
    write_trajectories(path, tiny.trajectories(30, seed=5))
    return path


def settings(data, variant="full", **changes):
    stages = {"model": MODEL, "behaviour": STAGE, "likelihood": {**STAGE, "target_rate": 0.1, "trace": 0.3}}
    return RunSettings("qsft", str(data), **{**stages, **VARIANTS[variant], **changes})


def go(plan, out, resume=False):
    return train(plan, out, tokenizer=tiny.tokenizer(), resume=resume, quiet=True)


def logs(out):
    """Every number of every log line, bit for bit, without the rates."""
    found = {}
    for path in sorted(out.glob("log-*.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        found[path.name] = [{k: v for k, v in line.items() if k not in RATES} for line in lines]
    return found


def files(out):
    """Content of everything that a run leaves, except its logs."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and not path.name.startswith("log-")
    }


def assert_same_run(out, reference):
    assert logs(out) == logs(reference)
    found, expected = files(out), files(reference)
    assert found.keys() == expected.keys()
    assert {name for name in expected if found[name] != expected[name]} == set()


@pytest.fixture(scope="module")
def reference(data, tmp_path_factory):
    """Uninterrupted runs, one a variant."""
    done = {}

    def run(variant):
        if variant not in done:
            done[variant] = go(settings(data, variant), tmp_path_factory.mktemp("reference") / "run")
        return done[variant]

    return run


def kill_in_step(monkeypatch, stage, step):
    """Die in the forward pass of an optimiser step (0-based) of a stage."""
    kind = {"behaviour": SFTTrainer, "likelihood": QSFTTrainer}[stage]
    original = SFTTrainer.compute_loss

    def compute_loss(self, *arguments, **keywords):
        if type(self) is kind and self.state.global_step == step:
            raise Killed
        return original(self, *arguments, **keywords)

    monkeypatch.setattr(SFTTrainer, "compute_loss", compute_loss)


def interrupted(plan, out, monkeypatch, arrange, resume=False):
    with monkeypatch.context() as patched:
        arrange(patched)
        with pytest.raises(Killed):
            go(plan, out, resume)


def test_the_reference_is_what_the_tests_need(reference):
    lines = logs(reference("full"))
    assert [line["step"] for line in lines["log-likelihood.jsonl"]] == list(range(2, LAST + 1, 2))
    values = [line["loss"] for name in lines for line in lines[name]]
    assert len(set(values)) == len(values) == LAST
    assert lines["log-likelihood.jsonl"][-1]["target_distance"] > 1e-4
    weights = safetensors.torch.load_file(reference("full") / "likelihood" / "model.safetensors")
    before = safetensors.torch.load_file(reference("full") / "behaviour" / "model.safetensors")
    assert any(not torch.equal(weights[name], before[name]) for name in weights)


def test_dropout_and_data_order_matter(data, reference, tmp_path):
    """So that a resumed run which lost either would be found out."""
    other = go(settings(data, model={"model_type": "gpt2", **tiny.SIZES["gpt2"]}), tmp_path / "dry")
    assert logs(other) != logs(reference("full"))
    shuffled = go(settings(data, behaviour={**STAGE, "data_seed": 7}), tmp_path / "shuffled")
    assert logs(shuffled)["log-behaviour.jsonl"] != logs(reference("full"))["log-behaviour.jsonl"]


@pytest.mark.parametrize(
    ("stage", "step"),
    [("behaviour", step) for step in (0, 4, 7)] + [("likelihood", step) for step in (0, 5, 8, 11)],
)
def test_killed_in_a_step(stage, step, data, reference, tmp_path, monkeypatch):
    out = tmp_path / "run"
    plan = settings(data)
    interrupted(plan, out, monkeypatch, lambda patched: kill_in_step(patched, stage, step))
    assert json.loads((out / "run.json").read_text())["finished"] is False
    go(plan, out, resume=True)
    assert_same_run(out, reference("full"))


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "full"])
def test_killed_again_and_again(variant, data, reference, tmp_path, monkeypatch):
    out = tmp_path / "run"
    plan = settings(data, variant)
    kills = [("behaviour", 5), ("behaviour", 9), ("likelihood", 1), ("likelihood", 6), ("likelihood", 9)]
    for i, (stage, step) in enumerate(kills):
        interrupted(plan, out, monkeypatch, lambda p, at=(stage, step): kill_in_step(p, *at), resume=i > 0)
    go(plan, out, resume=True)
    assert_same_run(out, reference(variant))


def test_killed_in_the_support_pass(data, reference, tmp_path, monkeypatch):
    out, calls = tmp_path / "run", []
    original = SupportRule.select

    def select(self, *arguments):
        calls.append(1)
        if len(calls) == 5:
            raise Killed
        return original(self, *arguments)

    interrupted(settings(data), out, monkeypatch, lambda patched: patched.setattr(SupportRule, "select", select))
    assert not list(out.rglob("support*"))
    go(settings(data), out, resume=True)
    assert_same_run(out, reference("full"))


def dies_after(function, count=1):
    """The function, which does its work ``count`` times and then dies."""
    calls = []

    def dying(*arguments, **keywords):
        result = function(*arguments, **keywords)
        calls.append(1)
        if len(calls) == count:
            raise Killed
        return result

    return dying


SAVING = [(Trainer, "_save_optimizer_and_scheduler"), (Trainer, "_save_rng_state"), (SFTTrainer, "_save")]


@pytest.mark.parametrize(("owner", "name"), [*SAVING, (QSFTTrainer, "_save_extra")], ids=lambda value: str(value))
@pytest.mark.parametrize("count", [1, 3, 5])
def test_killed_while_saving_a_checkpoint(owner, name, count, data, reference, tmp_path, monkeypatch):
    """The incomplete folder is thrown away and the one before it used. The third is at the end of stage 1."""
    if name == "_save_extra" and count > 3:
        pytest.skip("stage 2 has three checkpoints")
    out = tmp_path / "run"
    interrupted(
        settings(data), out, monkeypatch, lambda p: p.setattr(owner, name, dies_after(getattr(owner, name), count))
    )
    incomplete = [p for p in out.glob("checkpoints/*/checkpoint-*") if not (p / "complete").exists()]
    assert len(incomplete) == 1
    go(settings(data), out, resume=True)
    assert_same_run(out, reference("full"))


@pytest.mark.parametrize("variant", ["full", "lora", "ends inside an epoch"])
def test_killed_between_the_last_checkpoint_and_the_result(variant, data, reference, tmp_path, monkeypatch):
    """Training is over then: not one step more may be made."""
    out = tmp_path / "run"
    for i, stage in enumerate(("behaviour", "likelihood")):
        original = stages.whole_folder

        def whole_folder(folder, stage=stage, original=original):
            if folder.name == stage:
                raise Killed
            return original(folder)

        arrange = lambda p, f=whole_folder: p.setattr(stages, "whole_folder", f)  # noqa: E731
        interrupted(settings(data, variant), out, monkeypatch, arrange, resume=i > 0)
    go(settings(data, variant), out, resume=True)
    assert_same_run(out, reference(variant))


@pytest.mark.parametrize("moment", ["save_pretrained", "finished"])
def test_killed_while_finishing(moment, data, reference, tmp_path, monkeypatch):
    out = tmp_path / "run"
    original = runs.write_json

    def write_json(path, content):
        if content["finished"]:
            raise Killed
        original(path, content)

    def arrange(patched):
        if moment == "finished":
            patched.setattr(runs, "write_json", write_json)
        else:
            patched.setattr(
                stages.QSFTPolicyConfig, "save_pretrained", dies_after(stages.QSFTPolicyConfig.save_pretrained)
            )

    interrupted(settings(data), out, monkeypatch, arrange)
    go(settings(data), out, resume=True)
    assert_same_run(out, reference("full"))


def test_a_finished_run_is_left_alone(data, reference):
    out = reference("full")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    go(settings(data), out, resume=True)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


@pytest.mark.parametrize("method", ["sft", "filtered-bc"])
def test_one_stage_methods(method, data, tmp_path, monkeypatch):
    plan = RunSettings(method, str(data), MODEL, behaviour=STAGE)
    whole = go(plan, tmp_path / "whole")
    steps = len(logs(whole)["log-behaviour.jsonl"]) * 2
    assert steps == (12 if method == "sft" else 6)
    for i, step in enumerate((3, 5)):
        interrupted(
            plan, tmp_path / "run", monkeypatch, lambda p, s=step: kill_in_step(p, "behaviour", s), resume=i > 0
        )
    go(plan, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", whole)
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "run"}


def test_groups_by_length_are_drawn_as_they_were(data, tmp_path, monkeypatch):
    """The third step of the second epoch; Transformers' own groups would be others after it."""
    stage = {**STAGE, "save_steps": 2, "train_sampling_strategy": "group_by_length"}
    plan = RunSettings("sft", str(data), MODEL, behaviour=stage)
    whole = go(plan, tmp_path / "whole")
    interrupted(plan, tmp_path / "run", monkeypatch, lambda p: kill_in_step(p, "behaviour", 6))
    go(plan, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", whole)
    lines = logs(whole)["log-behaviour.jsonl"]
    other = go(RunSettings("sft", str(data), MODEL, behaviour=stage, seed=1), tmp_path / "other")
    assert lines != logs(other)["log-behaviour.jsonl"]


SCRIPT = """
import sys
from tests.training.test_resume import go, settings
go(settings(sys.argv[1]), sys.argv[2], resume=len(sys.argv) > 3)
"""


def test_a_real_kill(data, reference, tmp_path):
    """SIGKILL of another process in stage 2, then resumed here."""
    out = tmp_path / "run"
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(data), str(out)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while not list(out.glob("checkpoints/likelihood/*/complete")):
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert json.loads((out / "run.json").read_text())["finished"] is False
    go(settings(data), out, resume=True)
    assert_same_run(out, reference("full"))


class TestFullDisk:
    """As the disk fills up, ``open`` and pyarrow raise OSError, safetensors and torch.save errors of their own."""

    FULL = OSError(errno.ENOSPC, "No space left on device")

    def torch_error(self):
        error = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")
        error.__context__ = RuntimeError("basic_ios::clear: iostream error")
        return error

    def fails(self, function, error, count):
        calls = []

        def failing(*arguments, **keywords):
            calls.append(1)
            if len(calls) == count:
                raise error
            return function(*arguments, **keywords)

        return failing

    @pytest.mark.parametrize("count", [1, 5])
    @pytest.mark.parametrize("what", ["weights", "optimiser", "table", "result", "target", "log"])
    def test_one_line_and_nothing_half_written(self, what, count, data, reference, tmp_path, monkeypatch):
        out = tmp_path / "run"
        full = safetensors.SafetensorError("I/O error: No space left on device (os error 28)")
        places = {
            "weights": (SFTTrainer, "_save", full),
            "optimiser": (Trainer, "_save_optimizer_and_scheduler", self.torch_error()),
            "table": (SupportRule, "select", self.FULL),
            "result": (stages, "whole_folder", self.FULL),
            "target": (QSFTTrainer, "_save_extra", full),
            "log": (stages.JSONLinesLog, "on_log", self.FULL),
        }
        owner, name, error = places[what]
        if (what, count) in (("result", 5), ("target", 5)):
            pytest.skip("there are not so many")
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, self.fails(getattr(owner, name), error, count))
            with pytest.raises(CheckpointError, match="the disk is full; free some space.*--resume") as raised:
                go(settings(data), out)
        assert "\n" not in str(raised.value)
        for checkpoint in out.glob("checkpoints/*/checkpoint-*"):
            assert (checkpoint / "complete").exists()
        assert not list(out.rglob("*.partial*")) + list(tmp_path.glob("*.partial*"))
        go(settings(data), out, resume=True)
        assert_same_run(out, reference("full"))

    def test_other_errors_are_not_taken_for_it(self, data, tmp_path, monkeypatch):
        with monkeypatch.context() as patched:
            patched.setattr(SFTTrainer, "_save", self.fails(SFTTrainer._save, RuntimeError("odd"), 1))
            with pytest.raises(RuntimeError, match="odd"):
                go(settings(data), tmp_path / "run")
