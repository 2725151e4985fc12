"""Bad input to a run is one line, before anything is trained, and leaves nothing behind."""

import json
import logging
import math
import warnings

import pytest
import torch

from qsft.data import Trajectory, Turn, write_trajectories
from qsft.errors import CheckpointError, ConfigError, DataError, QSFTError
from qsft.models import load_causal_lm
from qsft.policies import load_policy
from qsft.training import ILQLConfig, QSFTConfig, RunSettings, SFTConfig, runs, stages, train
from qsft.training.runs import longest_reply
from tests.data.families import byte_bpe
from tests.models import tiny

MODEL = {"model_type": "gpt2", **tiny.SIZES["gpt2"]}
STAGE = {"max_steps": 2, "per_device_train_batch_size": 4, "use_cpu": True, "logging_steps": 1, "save_steps": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "data.jsonl"
    write_trajectories(path, tiny.trajectories(12, seed=5))
    return path


def settings(path, method="qsft", **changes):
    stages = {"behaviour": STAGE, "likelihood": STAGE if method == "qsft" else {}}
    return RunSettings(**{"method": method, "data": path, "model": MODEL, **stages, **changes})


def go(plan, out, resume=False, tokenizer=None):
    return train(plan, out, tokenizer=tokenizer or tiny.tokenizer(), resume=resume, quiet=True)


def refused(out, kind, match, action):
    """The action raises one line and leaves no folder."""
    with pytest.raises(kind, match=match) as raised:
        action()
    assert isinstance(raised.value, QSFTError)
    assert "\n" not in str(raised.value)
    assert not out.exists()
    assert not list(out.parent.glob("*.partial"))


BAD = {
    "unknown method": ({"method": "ppo"}, ConfigError, "method: 'ppo' is unknown; use one of qsft, sft, bc, filtered-bc"),
    "unknown name": ({"likelihood": {"bakup": "max"}}, ConfigError, "likelihood:.*'bakup'.*QSFTConfig"),
    "unknown name of stage 1": ({"behaviour": {"learning_rat": 1}}, ConfigError, "behaviour:.*'learning_rat'.*SFTConfig"),
    "not a mapping": ({"likelihood": None}, ConfigError, "likelihood: must hold settings"),
    "bad value of the ecosystem": ({"behaviour": {"lr_scheduler_type": "wavy"}}, ConfigError, "behaviour:.*wavy"),
    "bad type": ({"behaviour": {"save_steps": "often"}}, ConfigError, "behaviour:"),
    "end of turn": ({"end_of_turn": 3}, ConfigError, "end_of_turn: 3 must be the text of a token, or a list of such"),
    "no end of turn": ({"end_of_turn": []}, ConfigError, r"end_of_turn: \[\] must be the text of a token"),
    "form": ({"likelihood": {"form": "square"}}, ConfigError, "form: 'square' is unknown"),
    "backup": ({"likelihood": {"backup": "min"}}, ConfigError, "backup: 'min'"),
    "gamma": ({"likelihood": {"gamma": 1.5}}, ConfigError, "gamma: 1.5 is outside"),
    "horizon": ({"likelihood": {"horizon": 1}}, DataError, r"data.jsonl: row \d+: has \d turns of the agent, more than"),
    "horizon and gamma": ({"likelihood": {"horizon": 9, "gamma": 0.9}}, ConfigError, "horizon: 9: .* needs gamma 1"),
    "batch of none": ({"behaviour": {"per_device_train_batch_size": 0}}, ConfigError, "per_device_train_batch_size: 0"),
    "rate": ({"behaviour": {"learning_rate": "x"}}, ConfigError, "behaviour: learning_rate: 'x' must be a number"),
    "nothing for a number": ({"likelihood": {"gamma": None}}, ConfigError, "likelihood: gamma: is empty; give a number"),
    "nothing for steps": ({"behaviour": {"max_steps": None}}, ConfigError, "behaviour: max_steps: is empty; give a whole"),
    "nothing for a flag": ({"behaviour": {"muon": None}}, ConfigError, "behaviour: muon: is empty; give true or false"),
    "no number": ({"likelihood": {"weight_temperature": math.nan}}, ConfigError, "weight_temperature: nan must be a number"),
    "a flag for a number": ({"likelihood": {"gamma": True}}, ConfigError, "likelihood: gamma: True must be a number"),
    "half a token": ({"likelihood": {"support_max_tokens": 10.5}}, ConfigError, "support_max_tokens: 10.5 must be a whole"),
    "half a step": ({"behaviour": {"max_steps": 1.5}}, ConfigError, "behaviour: max_steps: 1.5 must be a whole number"),
    "negative rate": ({"behaviour": {"learning_rate": -1.0}}, ConfigError, "behaviour: learning_rate: -1.0 must be"),
    "no epochs": ({"behaviour": {"num_train_epochs": 0, "max_steps": -1}}, ConfigError, "behaviour: num_train_epochs: 0"),
    "no accumulation": ({"behaviour": {"gradient_accumulation_steps": 0}}, ConfigError, "gradient_accumulation_steps: 0"),
    "infinite backup_beta": ({"likelihood": {"backup_beta": math.inf}}, ConfigError, "backup_beta: inf must be positive"),
    "noise": ({"behaviour": {"neftune_noise_alpha": 5.0}}, ConfigError, "neftune_noise_alpha: the loss is computed apart"),
    "smoothing": ({"likelihood": {"label_smoothing_factor": 0.1}}, ConfigError, "label_smoothing_factor: the loss"),
    "half a checkpoint": ({"likelihood": {"save_only_model": True}}, ConfigError, "save_only_model: a checkpoint without"),
    "evaluation": ({"behaviour": {**STAGE, "eval_strategy": "epoch"}}, ConfigError, "behaviour: .*eval_dataset"),
    "a flag for a dummy": ({"likelihood": {"dummy_token": True}}, ConfigError, "dummy_token: True is neither"),
    "lora of no names": ({"lora": ["c_attn"]}, ConfigError, r"lora: must hold arguments of peft.LoraConfig.*\['c_attn'\]"),
    "lora on the head": ({"lora": {"target_modules": ["c_attn", "wte"]}}, ConfigError, "lora: an adapter on embeddings"),
    "a list for a number": ({"likelihood": {"trace": [0.9]}}, ConfigError, r"likelihood: trace: \[0.9\] must be a number"),
    "bound": ({"likelihood": {"return_low": "x"}}, ConfigError, "likelihood: return_low: 'x' must be a number"),
    "share": ({"method": "filtered-bc", "likelihood": {}, "filter_share": "all"}, ConfigError, "filter_share: 'all'"),
    "seed": ({"seed": -1}, ConfigError, "seed: -1 must be a number of at least 0"),
    "data is a number": ({"data": 5}, ConfigError, "data: 5 is no path"),
    "backup_beta": ({"likelihood": {"backup_beta": 0}}, ConfigError, "backup_beta: 0 must be positive"),
    "max_weight": ({"likelihood": {"max_weight": 0.5}}, ConfigError, "max_weight: 0.5 must be at least 1"),
    "no temperature": ({"likelihood": {"weight_temperature": 0.0}}, ConfigError, "weight_temperature: 0.0 must be pos"),
    "temperature of uniform": (
        {"likelihood": {"weight_temperature": 0.1, "form": "uniform"}},
        ConfigError,
        "weight_temperature: the uniform form",
    ),
    "temperature and horizon": (
        {"likelihood": {"weight_temperature": 0.1, "horizon": 5}},
        ConfigError,
        "weight_temperature: weighs differences",
    ),
    "support": ({"likelihood": {"support_threshold": 2.0}}, ConfigError, "support threshold: 2.0"),
    "range": ({"likelihood": {"return_low": 3.0, "return_high": 1.0}}, ConfigError, "return range"),
    "half a range": ({"likelihood": {"return_low": 30.0}}, ConfigError, "return range"),
    "range violated": (
        {"likelihood": {"return_low": -0.5, "return_high": 9.0}},
        DataError,
        r"data.jsonl: row \d+: field rewards: .* outside of the return range \[-0.5, 9\]",
    ),
    "half a range violated": ({"likelihood": {"return_high": 0.1}}, DataError, r"row \d+: field rewards: .*return range"),
    "dummy is said": ({"likelihood": {"dummy_token": "c"}}, DataError, r"row \d+: the agent produces token 6"),
    "no such dummy": ({"likelihood": {"dummy_token": "zz"}}, ConfigError, "dummy_token: 'zz' is not in the vocabulary"),
    "log and save": ({"behaviour": {**STAGE, "logging_steps": 2}}, ConfigError, "not a multiple of logging_steps"),
    "log and save differ": ({"behaviour": {"save_strategy": "epoch"}}, ConfigError, "differs from logging_strategy"),
    "columns": ({"behaviour": {"remove_unused_columns": True}}, ConfigError, "remove_unused_columns"),
    "unknown tracker": ({"likelihood": {"report_to": "tensorbord"}}, ConfigError, "report_to: 'tensorbord' is unknown"),
    "chunk": ({"behaviour": {"loss_chunk_size": 0}}, ConfigError, "loss_chunk_size: 0"),
    "output_dir": ({"behaviour": {"output_dir": "x"}}, ConfigError, "behaviour: output_dir"),
    "resume": ({"behaviour": {"resume_from_checkpoint": "x"}}, ConfigError, "behaviour: resume_from_checkpoint: a run goes"),
    "share of another method": ({"filter_share": 0.5}, ConfigError, "filter_share: qsft does not read it; remove it"),
    "tokens of another method": ({"return_tokens": 8}, ConfigError, "return_tokens: qsft does not read it; remove it"),
    "max_length of stage 2": ({"likelihood": {"max_length": 9}}, ConfigError, "set it under behaviour"),
    "max_length too short": ({"behaviour": {**STAGE, "max_length": 3}}, DataError, "raise max_length"),
    "start_from": ({"start_from": "scratch"}, ConfigError, "start_from: 'scratch'"),
    "filter_share": ({"method": "filtered-bc", "likelihood": {}, "filter_share": 0.0}, ConfigError, "filter_share: 0.0"),
    "filter_gamma": ({"method": "filtered-bc", "likelihood": {}, "filter_gamma": 1.5}, ConfigError, "filter_gamma: 1.5"),
    "no stage 2": ({"method": "sft", "likelihood": {"gamma": 1}}, ConfigError, "likelihood: sft has no such stage"),
    "format": ({"format": "prose"}, ConfigError, "format: 'prose'"),
    "lora argument": ({"lora": {"rank": 2}}, ConfigError, "lora: .*'rank'"),
    "lora number": ({"lora": {"r": None}}, ConfigError, "lora: r: is empty; give a whole number"),
    "lora bias": ({"lora": {"bias": "all"}}, ConfigError, "lora: bias: the target is a second adapter"),
    "lora target": ({"lora": {"target_modules": ["q_proj"]}}, ConfigError, "lora: .*q_proj"),
    "model type": ({"model": {"model_type": "gpt17"}}, ConfigError, "model_type 'gpt17' is unknown"),
    "no model type": ({"model": {"n_embd": 16}}, ConfigError, "a config needs model_type"),
    "model setting": ({"model": {**MODEL, "n_embd": "wide"}}, ConfigError, "model: .*n_embd"),
    "model setting of no name": ({"model": {**MODEL, "n_layers": 3}}, ConfigError, "'n_layers'; did you mean n_layer"),
    "model sizes": ({"model": {**MODEL, "n_head": 3}}, ConfigError, "model: "),
    "no model": ({"model": "/nowhere/model"}, CheckpointError, "/nowhere/model: cannot be loaded"),
    "no model config": ({"model": "/nowhere/model.json"}, ConfigError, "/nowhere/model.json"),
    "no behaviour model": ({"behaviour_model": "/nowhere/model"}, CheckpointError, "/nowhere/model"),
    "no data": ({"data": "/nowhere/data.jsonl"}, DataError, "no such file"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case, data, tmp_path, monkeypatch):
    changes, kind, match = BAD[case]
    trained = []
    monkeypatch.setattr(stages.SFTTrainer, "train", lambda *a, **k: trained.append(1))
    refused(tmp_path / "run", kind, match, lambda: go(settings(data, **changes), tmp_path / "run"))
    assert not trained


def test_names_of_settings(data, tmp_path):
    with pytest.raises(ConfigError, match=r"a.yaml: 'modle' is not a setting; there are method, data, model") as raised:
        RunSettings.from_dict({"method": "sft", "modle": "x"}, "a.yaml")
    assert "\n" not in str(raised.value)
    with pytest.raises(ConfigError, match=r"a.yaml: 'data' is missing; give it in the config or as --data"):
        RunSettings.from_dict({"method": "sft", "model": "x"}, "a.yaml")
    made = RunSettings.from_dict({"method": "sft", "data": str(data), "model": "x", "seed": 3}, "a.yaml")
    assert made == RunSettings("sft", data, "x", seed=3)


def test_a_horizon_for_turns_that_do_not_cost_alike(tmp_path):
    """All is lost at the third turn: at the second, the return is below what the last two of three turns can cost."""
    path = tmp_path / "late.jsonl"
    turns = [turn for reward in (0.0, 0.0, -6.0) for turn in (Turn("user", "a\n"), Turn("assistant", "b\n", reward))]
    write_trajectories(path, [Trajectory(turns, "terminated")] * 4)
    plan = settings(path, likelihood={**STAGE, "horizon": 3, "return_low": -6.0, "return_high": 0.0})
    match = (
        r"late.jsonl: row 1: turn 2 of the agent is followed by a return of -6, below the -4 that likelihood.horizon"
    )
    refused(tmp_path / "run", DataError, match, lambda: go(plan, tmp_path / "run"))


def test_a_given_model_too_small_for_the_data(data, tmp_path):
    """It takes stage 1's place, so no training would find out before stage 2's."""
    small = tiny.make("gpt2", seed=0)
    small.config.n_positions = 4
    small.transformer.wpe = torch.nn.Embedding(4, small.config.n_embd)
    small.save_pretrained(tmp_path / "small")
    plan = settings(data, behaviour_model=str(tmp_path / "small"))
    out = tmp_path / "run"
    refused(out, ConfigError, r"row \d+: has \d+ tokens and the model 4 positions", lambda: go(plan, out))


def test_a_model_smaller_than_its_tokenizer(data, tmp_path):
    plan = settings(data, model={**MODEL, "vocab_size": 11})
    refused(tmp_path / "run", ConfigError, "it has 11 tokens and the tokenizer 13", lambda: go(plan, tmp_path / "run"))


def test_no_tokenizer(data, tmp_path):
    out = tmp_path / "run"
    refused(out, ConfigError, "tokenizer: a model made from a config needs one", lambda: train(settings(data), out))
    plan = settings(data, tokenizer=str(tmp_path))
    refused(out, CheckpointError, "no tokenizer can be loaded", lambda: train(plan, out))


def test_logits_that_change_after_the_head(data, tmp_path):
    plan = settings(data, model={"model_type": "gemma2", **tiny.SIZES["gemma2"]})
    refused(tmp_path / "run", ConfigError, "changes its logits", lambda: go(plan, tmp_path / "run"))


def test_returns_that_are_all_the_same(tmp_path):
    turns = [Turn("user", "a\n"), Turn("assistant", "b\n", 1.0)]
    write_trajectories(tmp_path / "d.jsonl", [Trajectory(turns, "terminated")] * 8)
    plan = settings(tmp_path / "d.jsonl")
    refused(tmp_path / "run", DataError, "every return-to-go in the data is 1", lambda: go(plan, tmp_path / "run"))


class TestFolder:
    def one_line(self, match, action, kind=ConfigError):
        with pytest.raises(kind, match=match) as raised:
            action()
        assert "\n" not in str(raised.value)

    def test_a_run_is_there_already(self, data, tmp_path):
        go(settings(data), tmp_path / "run")
        before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
        self.one_line("there is a run already; continue it with --resume", lambda: go(settings(data), tmp_path / "run"))
        for name, value in (("seed", 1), ("start_from", "model"), ("likelihood", {**STAGE, "gamma": 0.5})):
            plan = settings(data, **{name: value})
            self.one_line(
                f"run.json: {name} was .* and is now .*; resume with the same settings",
                lambda plan=plan: go(plan, tmp_path / "run", resume=True),
            )
        assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before

    def test_something_else_is_there(self, data, tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        for resume in (False, True):
            self.one_line(
                "not empty and holds no run", lambda resume=resume: go(settings(data), tmp_path, resume=resume)
            )
        assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]

    def test_a_file_is_there(self, data, tmp_path):
        (tmp_path / "run").write_text("mine")
        self.one_line("choose another --out", lambda: go(settings(data), tmp_path / "run"))
        self.one_line("choose another --out", lambda: go(settings(data), tmp_path / "run" / "below"))
        assert (tmp_path / "run").read_text() == "mine"

    @pytest.mark.parametrize("content", ["{", "[]", '{"finished": true}', "\xff"])
    def test_a_broken_record(self, content, data, tmp_path):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "run.json").write_text(content, encoding="latin-1")
        self.one_line(
            "run.json: is not the record of a run",
            lambda: go(settings(data), tmp_path / "run", resume=True),
            CheckpointError,
        )
        self.one_line("run.json", lambda: load_policy(tmp_path / "run"), CheckpointError)
        assert (tmp_path / "run" / "run.json").read_text(encoding="latin-1") == content

    def test_an_empty_folder_is_fine(self, data, tmp_path):
        (tmp_path / "run").mkdir()
        go(settings(data, "sft"), tmp_path / "run")
        assert (tmp_path / "run" / "model.safetensors").exists()

    def test_data_that_changed(self, tmp_path, monkeypatch):
        path = tmp_path / "d.jsonl"
        write_trajectories(path, tiny.trajectories(12, seed=5))
        with monkeypatch.context() as patched:
            patched.setattr(stages.SFTTrainer, "train", lambda *a, **k: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                go(settings(path), tmp_path / "run")
        write_trajectories(path, tiny.trajectories(12, seed=6))
        self.one_line(
            "d.jsonl: the data or the tokenizer changed", lambda: go(settings(path), tmp_path / "run", resume=True)
        )
        assert (tmp_path / "run" / "run.json").exists()

    def test_an_unfinished_run_is_not_loaded(self, data, tmp_path, monkeypatch):
        with monkeypatch.context() as patched:
            patched.setattr(stages.SFTTrainer, "train", lambda *a, **k: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                go(settings(data), tmp_path / "run")
        self.one_line(
            "the run is unfinished; continue it with .*--resume", lambda: load_policy(tmp_path / "run"), CheckpointError
        )

    def test_refused_while_resuming_nothing_is_taken_away(self, data, tmp_path, monkeypatch):
        with monkeypatch.context() as patched:
            patched.setattr(stages.SFTTrainer, "train", lambda *a, **k: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                go(settings(data), tmp_path / "run")
        (tmp_path / "run" / "behaviour").mkdir()
        (tmp_path / "run" / "behaviour" / "config.json").write_text("{}")
        self.one_line("behaviour", lambda: go(settings(data), tmp_path / "run", resume=True), CheckpointError)
        assert (tmp_path / "run" / "run.json").exists()

    def test_a_damaged_checkpoint(self, data, tmp_path, monkeypatch):
        with monkeypatch.context() as patched:
            patched.setattr(stages, "whole_folder", lambda folder: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                go(settings(data, behaviour={**STAGE, "max_steps": 1}), tmp_path / "run")
        (checkpoint,) = (tmp_path / "run").glob("checkpoints/behaviour/checkpoint-*")
        (checkpoint / "model.safetensors").write_bytes(b"\0" * 100)
        plan = settings(data, behaviour={**STAGE, "max_steps": 1})
        self.one_line(
            "checkpoint-1: the checkpoint cannot be read", lambda: go(plan, tmp_path / "run", True), CheckpointError
        )


class TestResults:
    def test_what_a_finished_run_holds(self, data, tmp_path):
        out = go(settings(data), tmp_path / "run")
        assert {path.name for path in out.iterdir()} == {
            "run.json", "config.json", "tokenizer.json", "tokenizer_config.json",
            "behaviour", "likelihood", "log-behaviour.jsonl", "log-likelihood.jsonl",
        }  # fmt: skip
        record = json.loads((out / "run.json").read_text())
        assert record["finished"] is True
        assert record["reply_tokens"] == 4
        assert json.loads((out / "config.json").read_text())["return_range"] == record["return_range"]
        assert str(tmp_path) not in (out / "config.json").read_text()

    def test_a_range_read_off_the_data(self, data, tmp_path):
        out = go(settings(data, likelihood={**STAGE, "gamma": 0.5}), tmp_path / "run")
        low, high = json.loads((out / "run.json").read_text())["return_range"]
        returns = []
        for trajectory in tiny.trajectories(12, seed=5):
            following = 0.0
            for reward in reversed(trajectory.rewards):
                following = reward + 0.5 * following
                returns.append(following)
        assert (low, high) == pytest.approx((min(returns), max(returns)))

    def test_the_seed_decides_everything(self, data, tmp_path):
        for variant in ({}, {"lora": {"r": 2, "target_modules": ["c_attn"]}}):
            weights = []
            for seed in (1, 1, 2):
                torch.manual_seed(len(weights))  # what was drawn before must not matter
                out = go(settings(data, seed=seed, **variant), tmp_path / f"{len(variant)}-{len(weights)}")
                weights.append((out / "likelihood" / "model.safetensors").read_bytes())
            assert weights[0] == weights[1] != weights[2]

    def test_a_given_behaviour_model_takes_the_place_of_stage_one(self, data, tmp_path):
        sft = go(settings(data, "sft"), tmp_path / "sft")
        out = go(settings(data, behaviour_model=str(sft), behaviour={}), tmp_path / "run")
        assert not (out / "log-behaviour.jsonl").exists()
        for name, p in load_causal_lm(out / "behaviour").state_dict().items():
            assert torch.equal(p, load_causal_lm(sft).state_dict()[name])

    def test_sft_goes_on_with_a_given_model(self, data, tmp_path):
        first = go(settings(data, "sft"), tmp_path / "first")
        second = go(settings(data, "sft", behaviour_model=str(first)), tmp_path / "second")
        before, after = (
            json.loads((out / "log-behaviour.jsonl").read_text().splitlines()[0]) for out in (first, second)
        )
        assert after["loss"] != before["loss"]

    def test_stage_two_can_start_from_the_model(self, data, tmp_path):
        """Its first values are not 1 then, as those of a likelihood model that equals the behaviour model are."""
        first = {}
        for start in ("behaviour", "model"):
            plan = settings(
                data, start_from=start, behaviour={**STAGE, "max_steps": 30, "save_steps": 30, "learning_rate": 1e-2}
            )
            out = go(plan, tmp_path / start)
            first[start] = json.loads((out / "log-likelihood.jsonl").read_text().splitlines()[0])["first_value"]
        assert first["behaviour"] == pytest.approx(1.0, abs=1e-4)
        assert first["model"] < 0.99

    def test_half_precision_weights_are_trained_in_float32(self, data, tmp_path):
        """A step of 1e-4 is lost in a bfloat16 weight."""
        pretrained = tiny.make("gpt2").to(torch.bfloat16)
        pretrained.save_pretrained(tmp_path / "model")
        tiny.tokenizer().save_pretrained(tmp_path / "model")
        out = train(settings(data, model=str(tmp_path / "model")), tmp_path / "run", quiet=True)
        for part in ("behaviour", "likelihood"):
            assert load_causal_lm(out / part).dtype == torch.float32

    @pytest.mark.parametrize("method", ["qsft", "ilql"])
    def test_a_run_s_policy_is_no_behaviour_model(self, method, data, tmp_path):
        stage = {"likelihood" if method == "qsft" else "critic": STAGE}
        first = go(settings(data, "sft"), tmp_path / "sft")
        plan = RunSettings(method, data, MODEL, behaviour_model=str(first), **stage)
        run = go(plan, tmp_path / "first")
        again = RunSettings(method, data, MODEL, behaviour_model=str(run), **stage)
        match = "holds the policy of a run, not a language model; give .*first/behaviour"
        refused(tmp_path / "run", CheckpointError, match, lambda: go(again, tmp_path / "run"))

    def test_a_half_precision_behaviour_model_is_read_in_float32(self, data, tmp_path):
        """The ratio of two models' probabilities is the value: with one of them rounded it is noise."""
        given = tiny.make("gpt2", seed=3).to(torch.bfloat16)
        given.save_pretrained(tmp_path / "given")
        out = go(settings(data, behaviour_model=str(tmp_path / "given"), behaviour={}), tmp_path / "run")
        kept = load_causal_lm(out / "behaviour")
        assert kept.dtype == torch.float32
        assert all(torch.equal(p, q.float()) for p, q in zip(kept.parameters(), given.parameters(), strict=True))

    def test_counting_input_tokens_leaves_the_log_as_it_is(self, data, tmp_path):
        """With it every line of the log looks like the summary at the end."""
        counted = {**STAGE, "include_num_input_tokens_seen": "all"}
        out = go(settings(data, "sft", behaviour=counted), tmp_path / "run")
        lines = [json.loads(line) for line in (out / "log-behaviour.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [*range(STAGE["logging_steps"], STAGE["max_steps"] + 1)]
        assert all("loss" in line for line in lines)

    def test_filtered_bc_sees_the_best(self, data, tmp_path, monkeypatch):
        seen = []
        original = stages.SFTTrainer.__init__

        def __init__(self, model, args, train_dataset, *arguments, **keywords):
            seen.append(train_dataset)
            original(self, model, args, train_dataset, *arguments, **keywords)

        monkeypatch.setattr(stages.SFTTrainer, "__init__", __init__)
        go(settings(data, "filtered-bc", filter_share=0.25), tmp_path / "run")
        returns = sorted((t.total_return for t in tiny.trajectories(12, seed=5)), reverse=True)
        assert sorted((sum(row["turn_rewards"]) for row in seen[0]), reverse=True) == pytest.approx(returns[:3])

    def test_discounted_filtered_bc_sees_the_quickest(self, tmp_path, monkeypatch):
        def game(turns, won):
            said = [Turn("user", "a\n"), Turn("assistant", "b\n", 0.0)] * turns
            return Trajectory([*said[:-1], Turn("assistant", "b\n", won)], "terminated")

        path = tmp_path / "games.jsonl"
        write_trajectories(path, [game(3, 1.0), game(1, 0.0), game(2, 1.0), game(5, 1.0), game(2, -1.0), game(4, -1.0)])
        seen = []
        monkeypatch.setattr(
            stages.SFTTrainer, "__init__", lambda self, model, args, data, *rest: seen.append(data) or 1 / 0
        )
        # of a long game only the last turn is learnt from, and it is no quicker for that
        behaviour = {**STAGE, "max_length": 5}
        plan = settings(path, "filtered-bc", behaviour=behaviour, filter_share=1 / 3, filter_gamma=0.9)
        with pytest.raises(ZeroDivisionError):
            go(plan, tmp_path / "run")
        assert [len(rewards) for rewards in seen[0]["turn_rewards"]] == [1, 1]
        assert seen[0]["episode"][:] == [0, 2]

    def test_which_of_equal_episodes_stay_is_the_seeds(self, tmp_path, monkeypatch):
        path = tmp_path / "equal.jsonl"
        game = [Turn("user", "a\n"), Turn("assistant", "b\n", 1.0)]
        write_trajectories(path, [Trajectory(game, "terminated")] * 40)
        seen = []
        monkeypatch.setattr(
            stages.SFTTrainer, "__init__", lambda self, model, args, data, *rest: seen.append(data) or 1 / 0
        )
        for i, seed in enumerate((3, 3, 4)):
            plan = settings(path, "filtered-bc", filter_share=0.25, seed=seed)
            with pytest.raises(ZeroDivisionError):
                go(plan, tmp_path / str(i))
        first, again, other = (data["episode"] for data in seen)
        assert list(first) == list(again) != list(other)

    @pytest.mark.skipif(torch.accelerator.is_available(), reason="memory is pinned where there is an accelerator")
    def test_nothing_is_said_about_pinned_memory(self, data, tmp_path):
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*pin_memory.*")
            for name, stage in (("said", STAGE), ("not said", {k: v for k, v in STAGE.items() if k != "use_cpu"})):
                go(settings(data, "sft", behaviour=stage), tmp_path / name)
        pinned = {**STAGE, "dataloader_pin_memory": True, "use_cpu": False}
        with pytest.warns(UserWarning, match="pin_memory"):
            go(settings(data, "sft", behaviour=pinned), tmp_path / "asked for")

    def test_a_record_of_before_a_setting_existed(self, data, tmp_path):
        out = go(settings(data, "sft"), tmp_path / "run")
        record = json.loads((out / "run.json").read_text())
        del record["settings"]["format"]
        (out / "run.json").write_text(json.dumps(record))
        go(settings(data, "sft"), out, resume=True)
        with pytest.raises(ConfigError, match="format was 'auto' and is now 'text'"):
            go(settings(data, "sft", format="text"), out, resume=True)

    def test_longest_reply(self, tmp_path):
        rows = tiny.dataset(tmp_path, tiny.trajectories(40, seed=2))
        replies = [len(turn.text.split()) + 1 for t in tiny.trajectories(40, seed=2) for turn in t.agent_turns]
        assert longest_reply(rows) == max(replies)

    def test_max_length_keeps_whole_turns_in_training_and_play(self, data, tmp_path):
        out = go(settings(data, behaviour={**STAGE, "max_length": 16}), tmp_path / "run")
        policy = load_policy(out, temperature=0.0)
        history = Trajectory([Turn("user", "a b c d\n"), Turn("assistant", "a\n", 0.0)] * 6 + [Turn("user", "a\n")])
        assert policy.act([history])[0].endswith("\n")


@pytest.mark.parametrize("given", ["tensorboard", ["tensorboard"]])
def test_a_tracker_that_is_not_installed(given, data, tmp_path, monkeypatch):
    monkeypatch.setattr("qsft.training.config.get_available_reporting_integrations", lambda: ["wandb"])
    plan = settings(data, likelihood={**STAGE, "report_to": given})
    match = "^likelihood: report_to: tensorboard is not installed; install it with pip install tensorboard"
    refused(tmp_path / "run", ConfigError, match, lambda: go(plan, tmp_path / "run"))
    assert SFTConfig(output_dir=str(tmp_path), report_to="wandb").report_to == ["wandb"]


def test_what_may_be_empty(tmp_path):
    empty = dict.fromkeys(("max_length", "return_low", "horizon", "save_total_limit", "tf32"))
    assert QSFTConfig(output_dir=str(tmp_path), **empty).horizon is None
    with pytest.raises(ConfigError, match="^tau: is empty; give a number"):
        ILQLConfig(output_dir=str(tmp_path), tau=None)


def test_configs_have_the_documented_defaults(tmp_path):
    config = QSFTConfig(output_dir=str(tmp_path))
    assert config.remove_unused_columns is False
    assert config.report_to == []
    assert not config.bf16
    assert SFTConfig(output_dir=str(tmp_path)).loss_chunk_size == 256
    assert logging.getLogger("qsft") is runs.logger


def test_replies_of_several_lines(tmp_path):
    """A base model has no template, and its turns end with a newline unless the run names another end."""
    path, out = tmp_path / "lines.jsonl", tmp_path / "run"
    episode = Trajectory([Turn("user", "go\n"), Turn("assistant", "one\ntwo", 1.0)], "terminated")
    write_trajectories(path, [episode] * 4)
    tokenizer = byte_bpe(["<eos>"], None, "<eos>")
    plan = settings(path, "sft")
    refused(out, DataError, "row 1: .*give another end_of_turn", lambda: go(plan, out, tokenizer=tokenizer))
    go(settings(path, "sft", end_of_turn="<eos>"), out, tokenizer=tokenizer)
    policy = load_policy(out)
    assert policy.tokenizer.end_of_turn_ids == [tokenizer.eos_token_id]
    assert policy.tokenizer(episode)["agent_mask"].count(1) == len(tokenizer.encode("one\ntwo")) + 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"likelihood": {**STAGE, "return_low": 0, "return_high": 0.5}}, r"row 5: field rewards: the return-to-go"),
        ({"likelihood": {**STAGE, "horizon": 1}}, r"row 5: has 2 turns of the agent"),
    ],
)
def test_rows_are_named_by_their_lines(tmp_path, changes, says):
    path, out = tmp_path / "lines.jsonl", tmp_path / "run"
    one, two = (Trajectory([Turn("user", "a\n"), Turn("assistant", "b\n", 0.5)] * n, "terminated") for n in (1, 2))
    write_trajectories(path, [one, two])
    path.write_text("\n\n" + path.read_text().replace("\n", "\n\n"))
    refused(out, DataError, f"lines.jsonl: {says}", lambda: go(settings(path, **changes), out))
