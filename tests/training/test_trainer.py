"""The trainers on `transformers.Trainer`: batches, metrics, callbacks, and where the model is used."""

import copy
import json
from pathlib import Path

import datasets
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler

from qsft.data import TrajectoryCollator
from qsft.errors import ConfigError, DataError
from qsft.models import SupportRule, compute_support, with_support
from qsft.training import QSFTConfig, QSFTTrainer, SFTConfig, SFTTrainer
from qsft.training.callbacks import JSONLinesLog
from qsft.training.checkpoints import last_checkpoint
from qsft.training.critic_config import ILQLConfig
from qsft.training.critic_trainers import CRITICS
from qsft.training.order import EpochOrder
from tests.models import tiny
from tests.training import naive

RANGE = {"return_low": -2.5, "return_high": 2.0}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    rows = tiny.dataset(folder, tiny.trajectories(24, seed=4))
    path = folder / "support.arrow"
    compute_support(
        tiny.make("gpt2", seed=9), rows, SupportRule(threshold=0.3), path, pad_token_id=0, dummy_id=0, progress=False
    )
    return with_support(rows, path)


def trainer(kind, data, folder, model=None, eval_dataset=None, **settings):
    """A trainer on one epoch of plain SGD, so that a step is proportional to the gradient."""
    settings = {
        "output_dir": str(folder),
        "use_cpu": True,
        "disable_tqdm": True,
        "num_train_epochs": 1,
        "per_device_train_batch_size": 4,
        "learning_rate": 0.1,
        "lr_scheduler_type": "constant",
        "optim": "sgd",
        "logging_steps": 1,
        "save_strategy": "no",
        **settings,
    }
    model = tiny.make("gpt2", seed=10) if model is None else model
    if kind in CRITICS:
        config = CRITICS[kind].config_class(**{**RANGE, **settings})
        return CRITICS[kind](model, config, data, tiny.tokenizer(), eval_dataset=eval_dataset)
    if kind == "sft":
        return SFTTrainer(model, SFTConfig(**settings), data, tiny.tokenizer(), eval_dataset=eval_dataset)
    return QSFTTrainer(model, QSFTConfig(**{**RANGE, **settings}), data, tiny.tokenizer(), eval_dataset=eval_dataset)


def weights(trained):
    return {name: p.detach().clone() for name, p in trained.inner_model.named_parameters()}


def logged(trained):
    return [line for line in trained.state.log_history if "loss" in line]


@pytest.mark.parametrize("kind", ["sft", "qsft", *CRITICS])
def test_accumulated_gradients_equal_a_big_batch(kind, data, tmp_path):
    """Although micro-batches hold different numbers of agent tokens."""
    runs = []
    for size, steps in ((8, 1), (2, 4)):
        runs.append(trainer(kind, data, tmp_path, per_device_train_batch_size=size, gradient_accumulation_steps=steps))
        runs[-1].train()
    big, accumulated = runs
    assert big.state.global_step == accumulated.state.global_step == 3
    for name, p in weights(big).items():
        torch.testing.assert_close(weights(accumulated)[name], p, rtol=1e-4, atol=1e-6)
    for one, other in zip(logged(big), logged(accumulated), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)
        assert one["action_logp"] == pytest.approx(other["action_logp"], rel=1e-5)


def test_logged_numbers_equal_the_definitions(data, tmp_path):
    """One log line over two steps, recomputed with the models as they were in each step."""
    trained = trainer("qsft", data, tmp_path, logging_steps=2, max_steps=2, target_rate=0.3)
    seen = []
    original = trained.compute_loss

    def compute_loss(model, inputs, **keywords):
        loss = trained.loss_module
        seen.append((copy.deepcopy(loss.model).eval(), copy.deepcopy(loss.target.copy), inputs["input_ids"]))
        return original(model, inputs, **keywords)

    trained.compute_loss = compute_loss
    trained.train()
    rows = {tuple(row["input_ids"]): dict(row) for row in data}
    parts = []
    for model, target, ids in seen:
        batch = [next(row for key, row in rows.items() if key == tuple(line[: len(key)])) for line in ids.tolist()]
        assert len(batch) == 4
        parts.append(naive.q_loss(model, target, batch, trained.loss_module.settings, 13))
    (line,) = logged(trained)
    weights_ = torch.tensor([w for part in parts for w in part.weights])
    assert line["loss"] == pytest.approx(sum(p.loss.item() / p.tokens for p in parts) / 2, rel=1e-4)
    assert line["target_mean"] == pytest.approx(weights_.mean().item(), rel=1e-4)
    assert line["target_std"] == pytest.approx(weights_.std(unbiased=False).item(), rel=1e-3)
    assert line["clipped_share"] == pytest.approx(sum(p.clipped for p in parts) / len(weights_))
    assert line["first_value"] == pytest.approx(sum(sum(p.first_values) for p in parts) / 8, rel=1e-4)
    assert line["first_return"] == pytest.approx(sum(sum(p.first_returns) for p in parts) / 8, rel=1e-4)
    logps = [logp for part in parts for logp in part.logps]
    assert line["action_logp"] == pytest.approx(sum(logps) / len(logps), rel=1e-4)
    # theta-bar after both steps, from the formula
    start, middle, end = seen[0][0], seen[1][0], trained.inner_model
    moved = size = 0.0
    for a, b, c in zip(start.parameters(), middle.parameters(), end.parameters(), strict=True):
        average = 0.7 * (0.7 * a + 0.3 * b) + 0.3 * c
        moved += float((c - average).square().sum())
        size += float(c.square().sum())
    assert line["target_distance"] == pytest.approx((moved / size) ** 0.5, rel=1e-3)
    assert line["tokens_per_second"] > 0


@pytest.mark.parametrize("strategy", ["random", "group_by_length"])
def test_values_from_batches_of_one_length_are_warned_of(tmp_path, caplog, strategy):
    with caplog.at_level("WARNING", logger="qsft"):
        for kind in (SFTConfig, QSFTConfig, ILQLConfig):
            caplog.clear()
            kind(output_dir=str(tmp_path), use_cpu=True, train_sampling_strategy=strategy)
            told = [record.getMessage() for record in caplog.records if record.name == "qsft"]
            warned = strategy == "group_by_length" and kind is not SFTConfig
            assert len(told) == warned and all("each batch holds one return" in text for text in told)


@pytest.mark.parametrize("method", ["sft", "qsft"])
def test_a_card_for_the_hub_is_of_the_language_model(data, tmp_path, method):
    trained = trainer(method, data, tmp_path)
    trained.create_model_card(model_name="mine")
    assert "mine" in (Path(trained.args.output_dir) / "README.md").read_text()
    assert trained.model is trained.loss_module


def test_groups_by_length_are_drawn_from_seed_and_epoch():
    torch.manual_seed(0)
    order = EpochOrder(LengthGroupedSampler(4, lengths=list(range(40))), seed=3)
    first = list(order)
    order.set_epoch(1)
    second = list(order)
    order.set_epoch(0)
    assert list(order) == first != second and sorted(first) == sorted(second) == list(range(40))
    assert list(EpochOrder(LengthGroupedSampler(4, lengths=list(range(40))), seed=4)) != first


def test_a_training_that_diverges_ends(data, tmp_path):
    trained = trainer("qsft", data, tmp_path, learning_rate=1e30, max_grad_norm=0.0, logging_steps=1)
    with pytest.raises(ConfigError, match=r"learning_rate: by step \d the loss is nan, so the model is lost"):
        trained.train()


def test_the_monte_carlo_phase_counts_its_own_tokens(data, tmp_path):
    """A cut-off last turn has a return but nothing to bootstrap from, so the two phases divide by other counts."""
    trained = trainer("qsft", data, tmp_path, monte_carlo_first=0.5, per_device_train_batch_size=6)
    counts, phases = [], []
    original = trained.compute_loss

    def compute_loss(model, inputs, num_items_in_batch=None, **keywords):
        counts.append(int(num_items_in_batch))
        phases.append((trained.loss_module.monte_carlo_only, int(trained.loss_module.count_targets(inputs))))
        return original(model, inputs, num_items_in_batch=num_items_in_batch, **keywords)

    trained.compute_loss = compute_loss
    trained.train()
    assert [phase for phase, _ in phases] == [True, True, False, False]
    assert counts == [count for _, count in phases]


@pytest.mark.parametrize("adapters", [False, True])
def test_the_model_is_used_inside_the_wrapped_forward_alone(adapters, data, tmp_path, monkeypatch):
    """Where parameters are sharded or gradients synchronised by hooks on the wrapper, any other use goes wrong."""
    model = tiny.make("llama", seed=10)
    if adapters:
        model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))
    trained = trainer("qsft", data, tmp_path, model=model, max_steps=3)
    module = trained.loss_module
    inside, used, outside = [], [], []
    forward = module.forward

    def recording(*arguments, **keywords):
        inside.append(True)
        try:
            return forward(*arguments, **keywords)
        finally:
            inside.pop()

    module.forward = recording

    def note(what):
        used.append(what)
        if not inside:
            outside.append(what)

    for name, part in module.named_modules():
        if part is not module:
            part.register_forward_pre_hook(lambda part, args, name=name: note(name))
    from qsft.models import states, target
    from qsft.training import losses

    for place in (losses, target):
        monkeypatch.setattr(place, "output_head", lambda model: note("head") or states.output_head(model))
    trained.train()
    assert outside == []
    # the head's matrix and a backbone, each for the model and for the target, three times
    assert used.count("head") == 6
    backbones = [name for name in used if name.endswith(("model.embed_tokens", "copy.model.embed_tokens"))]
    assert len(backbones) == 6


@pytest.mark.parametrize("kind", ["sft", "qsft"])
def test_evaluation(kind, data, tmp_path):
    trained = trainer(
        kind, data, tmp_path, eval_dataset=data, eval_strategy="steps", eval_steps=3, per_device_eval_batch_size=100
    )
    batch = TrajectoryCollator(0)(list(data))
    expected = trained.loss_module.eval()(**batch)["loss"].item()
    assert trained.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)
    trained.train()
    assert [line["step"] for line in trained.state.log_history if "eval_loss" in line] == [3, 6]


def test_best_checkpoint_is_loaded_at_the_end(data, tmp_path):
    trained = trainer(
        "sft", data, tmp_path, eval_dataset=data, eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1,
        load_best_model_at_end=True, save_total_limit=1, learning_rate=5.0, max_grad_norm=0.0,
    )  # fmt: skip
    trained.train()
    best = trained.state.best_model_checkpoint
    assert best.endswith("checkpoint-1")  # such steps only do harm
    stored = tiny.make("gpt2").from_pretrained(best)
    for name, p in stored.named_parameters():
        assert torch.equal(weights(trained)[name], p), name


@pytest.mark.parametrize("kind", ["sft", "qsft"])
def test_mixed_precision_is_close(kind, data, tmp_path):
    losses = []
    for bf16 in (False, True):
        trained = trainer(kind, data, tmp_path, bf16=bf16, max_steps=2)
        trained.train()
        losses.append([line["loss"] for line in logged(trained)])
        assert all(p.dtype == torch.float32 for p in trained.inner_model.parameters())
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert losses[1] != losses[0]


def test_activation_checkpointing_gives_the_same_gradients(data, tmp_path):
    runs = [trainer("qsft", data, tmp_path, max_steps=2, gradient_checkpointing=on) for on in (False, True)]
    calls = []
    runs[1].inner_model.transformer.h[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    for run in runs:
        run.train()
    assert len(calls) == 4  # each step's backward pass runs the block once more
    for name, p in weights(runs[0]).items():
        torch.testing.assert_close(weights(runs[1])[name], p, rtol=1e-5, atol=1e-7)


def test_stage_two_needs_a_support_table_and_a_range(data, tmp_path):
    with pytest.raises(ConfigError, match="'support_counts' is missing"):
        trainer("qsft", data.remove_columns(["support_counts"]), tmp_path)
    with pytest.raises(ConfigError, match="set both"):
        trainer("qsft", data, tmp_path, return_low=None)


@pytest.mark.parametrize("kind", ["qsft", "ilql"])
def test_what_the_data_contradicts(kind, data, tmp_path):
    with pytest.raises(DataError, match=r"train_dataset: row \d+: .* outside of the return range \[-0.2, 0.1\]"):
        trainer(kind, data, tmp_path, return_low=-0.2, return_high=0.1)
    if kind == "qsft":
        with pytest.raises(DataError, match=r"train_dataset: row \d+: the agent produces token 6"):
            trainer(kind, data, tmp_path, dummy_token="c")


@pytest.mark.parametrize(
    ("position", "given", "match"),
    [
        (0, "gpt2", "model: 'gpt2' is not a model; load it"),
        (1, "plain", "args: TrainingArguments is not the SFTConfig"),
        (2, "messages", "train_dataset: holds no tokenised trajectories"),
        (3, None, "processing_class: is missing"),
    ],
)
def test_arguments_of_another_kind(position, given, match, data, tmp_path):
    arguments = [tiny.make("gpt2"), SFTConfig(output_dir=str(tmp_path), use_cpu=True), data, tiny.tokenizer()]
    if given == "plain":
        given = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    if given == "messages":
        given = datasets.Dataset.from_dict({"messages": [[]]})
    arguments[position] = given
    with pytest.raises(ConfigError, match=match):
        SFTTrainer(*arguments)


def test_heads_are_not_trained_in_half_precision(data, tmp_path):
    config = ILQLConfig(output_dir=str(tmp_path), use_cpu=True, return_low=-4.0, return_high=4.0)
    with pytest.raises(ConfigError, match="model: is in torch.bfloat16, in which heads do not learn"):
        CRITICS["ilql"](tiny.make("gpt2").bfloat16(), config, data, tiny.tokenizer())


def test_several_gpus_in_one_process_are_refused(data, tmp_path):
    config = SFTConfig(output_dir=str(tmp_path), use_cpu=True)
    config._n_gpu = 2
    with pytest.raises(ConfigError, match="torchrun"):
        SFTTrainer(tiny.make("gpt2"), config, data, tiny.tokenizer())


class TestLog:
    def lines(self, path):
        return [json.loads(line) for line in path.read_text().splitlines()]

    def test_lines(self, data, tmp_path):
        trained = trainer("sft", data, tmp_path / "run", logging_steps=2)
        trained.add_callback(JSONLinesLog(tmp_path / "log.jsonl"))
        trained.train()
        lines = self.lines(tmp_path / "log.jsonl")
        assert [line["step"] for line in lines] == [2, 4, 6]
        assert all("loss" in line and "action_logp" in line for line in lines)

    def test_resuming_drops_what_lies_past_the_checkpoint_and_half_a_line(self, tmp_path):
        path = tmp_path / "log.jsonl"
        path.write_text('{"step": 2, "loss": 1}\n{"step": 4, "loss": 2}\n{"step": 6, "loss": 3}\n{"step": 8, "lo')
        state = type("State", (), {"global_step": 4, "is_world_process_zero": True})
        JSONLinesLog(path).on_train_begin(None, state, None)
        assert [line["step"] for line in self.lines(path)] == [2, 4]
        path.write_text('{"step": 2, "loss": 1}\n{"step": 4')
        JSONLinesLog(path).on_train_begin(None, state, None)
        assert [line["step"] for line in self.lines(path)] == [2]

    def test_other_processes_write_nothing(self, tmp_path):
        state = type("State", (), {"global_step": 0, "is_world_process_zero": False})
        log = JSONLinesLog(tmp_path / "log.jsonl")
        log.on_train_begin(None, state, None)
        log.on_log(None, state, None, {"loss": 1.0})
        assert not (tmp_path / "log.jsonl").exists()


class TestCheckpoints:
    def test_the_newest_complete_one(self, tmp_path):
        for step, complete in ((2, True), (10, True), (12, False)):
            (tmp_path / f"checkpoint-{step}").mkdir()
            if complete:
                (tmp_path / f"checkpoint-{step}" / "complete").touch()
        (tmp_path / "checkpoint-kept").mkdir()  # somebody's own
        assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
        assert (tmp_path / "checkpoint-kept").exists()
        assert not (tmp_path / "checkpoint-12").exists()
        assert last_checkpoint(tmp_path / "nowhere") is None

    @pytest.mark.parametrize("limit", [1, 2])
    def test_an_older_one_stays_until_the_newer_one_is_complete(self, limit, data, tmp_path, monkeypatch):
        trained = trainer(
            "qsft", data, tmp_path, save_strategy="steps", save_steps=2, logging_steps=2, save_total_limit=limit
        )
        kept = []
        original = type(trained)._save_extra

        def _save_extra(self, folder):
            kept.append(sorted(path.parent.name for path in tmp_path.glob("*/complete")))
            original(self, folder)

        monkeypatch.setattr(type(trained), "_save_extra", _save_extra)
        trained.train()
        assert [len(names) for names in kept] == [0, 1, min(2, limit)]
        left = [f"checkpoint-{step}" for step in (2, 4, 6)][-limit:]
        assert sorted(path.parent.name for path in tmp_path.glob("*/complete")) == left
        assert trained.args.save_total_limit == limit
