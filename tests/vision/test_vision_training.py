"""Losses of vision-language models against whole-logits definitions, and runs from a file with images to a policy."""

from __future__ import annotations

import json
import re

import pytest
import torch
from PIL import Image

from qsft.data import Trajectory, TrajectoryCollator, TrajectoryTokenizer, Turn, tokenize_file, write_trajectories
from qsft.errors import DataError
from qsft.models import SupportRule, compute_support, make_target, with_support
from qsft.models.states import check_head, state_hidden
from qsft.models.value_model import ValueModel
from qsft.training import RunSettings, train
from qsft.training.critic_config import ILQLConfig
from qsft.training.critic_losses import ILQLLoss
from qsft.training.losses import QLoss, QLossSettings, SupervisedLoss
from qsft.training.trainer import QSFTTrainer
from tests.training import naive
from tests.vision import families
from tests.vision.seeing import Seeing

SETTINGS = QLossSettings("anchored", "soft", 7.0, 0.3, 0.9, "turn", (-3.0, 3.0), None, 0)


@pytest.fixture(scope="module", params=families.FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def made(family, tmp_path_factory):
    """Tokenizer, collator, and four rows with the support table of a behaviour model that sees."""
    folder = tmp_path_factory.mktemp(family)
    tokenizer = TrajectoryTokenizer(families.processor(family))
    data = tokenize_file(families.episodes(folder / "images", 4), tokenizer, folder)
    rule, behaviour = SupportRule(threshold=0.2, max_tokens=5), families.make(family, 9)
    table = folder / "s.arrow"
    compute_support(
        behaviour, data, rule, table, pad_token_id=0, dummy_id=0, batch_size=3, progress=False, images=tokenizer.images
    )
    rows = [dict(row) for row in with_support(data, table)]
    return tokenizer, TrajectoryCollator(0, SETTINGS.gamma, images=tokenizer.images), rows, behaviour, rule


def test_supervised_loss_and_gradient_are_those_of_whole_logits(family, made):
    _, collator, rows, _, _ = made
    module = SupervisedLoss(families.make(family, 3), chunk_size=7)
    check_head(module.model)
    found = module(**collator(rows))["loss"]
    truth = [naive.supervised(Seeing(module.model, family, row), [row]) for row in rows]
    expected = sum(each.loss for each in truth) / sum(each.tokens for each in truth)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    gradients = []
    for loss in (found, expected):
        module.zero_grad()
        loss.backward()
        gradients.append({name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert any("vision" in name or "visual" in name for name in gradients[0])
    for name, gradient in gradients[1].items():
        torch.testing.assert_close(gradients[0][name], gradient, rtol=2e-3, atol=2e-6, msg=name)


def test_the_support_table_is_that_of_whole_logits(family, made):
    _, _, rows, behaviour, rule = made
    row = next(row for row in rows if row["images"])
    logps = naive.log_probabilities(Seeing(behaviour, family, row), row["input_ids"])
    states = [i - 1 for i, mine in enumerate(row["agent_mask"]) if mine]
    ids, kept = rule.select(logps[states], forbidden=0)
    assert row["support_ids"][: int((ids >= 0).sum())] == ids[ids >= 0].tolist()
    assert row["support_logps"][: len(kept[ids >= 0])] == pytest.approx(kept[ids >= 0].tolist(), rel=1e-4, abs=1e-5)


def test_stage_two_is_the_definition(family, made):
    _, collator, rows, _, _ = made
    rows = rows[:3]
    module = QLoss(families.make(family, 10), make_target(families.make(family, 9)), SETTINGS, 5).eval()
    found = module(**collator(rows))["loss"].item()
    vocabulary = len(families.processor(family).tokenizer)
    truth = [
        naive.q_loss(
            Seeing(module.model, family, row), Seeing(module.target.copy, family, row), [row], SETTINGS, vocabulary
        )
        for row in rows
    ]
    assert found == pytest.approx(float(sum(n.loss for n in truth)) / sum(n.tokens for n in truth), rel=1e-4)


def test_critics_read_the_states_of_whole_passes(family, made):
    _, collator, rows, _, _ = made
    model = families.make(family, 3)
    torch.manual_seed(0)
    critic = ValueModel.with_heads(model, 1, True, True)
    batch = collator(rows)
    states = state_hidden(critic.language_model, batch)
    at = 0
    for row, count in zip(rows, batch["state_mask"].sum(1).tolist(), strict=True):
        seen = {}
        handle = model.get_output_embeddings().register_forward_hook(
            lambda _, i, o, seen=seen: seen.update(hidden=i[0])
        )
        with torch.no_grad():
            Seeing(model, family, row)(torch.tensor([row["input_ids"]]), False)
        handle.remove()
        places = [i - 1 for i, mine in enumerate(row["agent_mask"]) if mine]
        torch.testing.assert_close(states[at : at + len(places)], seen["hidden"][0, places], rtol=1e-4, atol=1e-5)
        at += count
    vocabulary = len(families.processor(family).tokenizer)
    config = ILQLConfig(use_cpu=True, return_low=-3.0, return_high=3.0, output_dir="unused")
    loss = ILQLLoss(ValueModel.with_heads(model, vocabulary, True, True), config)(**batch)["loss"]
    assert torch.isfinite(loss)


def test_another_picture_is_another_loss(family, made, tmp_path):
    _, collator, rows, _, _ = made
    module = SupervisedLoss(families.make(family, 3)).eval()
    row = next(row for row in rows if row["images"])
    image = Image.open(row["images"][-1])
    other = families.save(tmp_path, "other.png", 123, image.height, image.width)
    losses = [
        module(**collator([{**row, "images": [*row["images"][:-1], path]}]))["loss"].item()
        for path in (row["images"][-1], other)
    ]
    assert abs(losses[0] - losses[1]) > 1e-4


def test_no_state_sees_what_comes_after_it(family, made, tmp_path):
    """Whatever attention the model gives to images, and to what it reads before its first word."""
    tokenizer, collator, _, _, _ = made
    paths = [families.save(tmp_path, f"{i}.png", i) for i in range(4)]
    model, hidden = families.make(family, 3), []
    for late in (
        (Turn("user", "so?\n", images=(paths[1],)), "down\n"),
        (Turn("user", "hm\n", images=tuple(paths[2:])), "up\n"),
    ):
        turns = [Turn("user", "up?\n", images=(paths[0],)), Turn("assistant", "left\n", 0.0), late[0]]
        row = tokenizer(Trajectory([*turns, Turn("assistant", late[1], 1.0)], "terminated"))
        hidden.append(state_hidden(model, collator([row]))[: len("left\n")])
    torch.testing.assert_close(*hidden, rtol=1e-4, atol=1e-5)


STAGE = {"max_steps": 4, "per_device_train_batch_size": 4, "logging_steps": 2, "save_steps": 2, "use_cpu": True}
STAGE |= {"learning_rate": 1e-3}
SHORT = {**STAGE, "max_steps": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_trajectories(folder / "games.jsonl", families.episodes(folder / "games-images", 8))
    return folder / "games.jsonl"


def settings(data, method="qsft", family="llava", **changes):
    stages = {"behaviour": STAGE}
    if method != "sft":
        stages["likelihood" if method == "qsft" else "critic"] = STAGE
    return RunSettings(method, str(data), families.config(family), **{**stages, **changes})


def logs(run):
    lines = [json.loads(line) for path in sorted(run.glob("log-*.jsonl")) for line in path.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "tokens_per_second"} for line in lines]


class Killed(BaseException):
    pass


def test_a_run_that_was_killed_goes_on_bit_for_bit(data, tmp_path, monkeypatch):
    whole = train(settings(data), tmp_path / "whole", tokenizer=families.processor("llava"), quiet=True)
    step = QSFTTrainer.training_step
    steps = iter(range(100))

    def dying(self, *arguments, **named):
        if next(steps) == 3:
            raise Killed
        return step(self, *arguments, **named)

    monkeypatch.setattr(QSFTTrainer, "training_step", dying)
    with pytest.raises(Killed):
        train(settings(data), tmp_path / "again", tokenizer=families.processor("llava"), quiet=True)
    monkeypatch.undo()
    again = train(settings(data), tmp_path / "again", tokenizer=families.processor("llava"), resume=True, quiet=True)
    assert logs(again) == logs(whole)
    for name in ("likelihood", "behaviour"):
        weights = [(run / name / "model.safetensors").read_bytes() for run in (whole, again)]
        assert weights[0] == weights[1]


@pytest.mark.parametrize("method", ["ilql", "archer-offline", "return-conditioned"])
def test_other_methods_train(data, tmp_path, method):
    plan = settings(data, "sft" if method == "return-conditioned" else method, behaviour=SHORT)
    plan.method = method
    run = train(plan, tmp_path / "run", tokenizer=families.processor("llava"), quiet=True)
    assert json.loads((run / "run.json").read_text())["finished"]


def test_lora(data, tmp_path):
    lora = {"r": 2, "target_modules": ["q_proj", "v_proj"]}
    plan = settings(data, lora=lora, behaviour=SHORT, likelihood=SHORT)
    run = train(plan, tmp_path / "run", tokenizer=families.processor("llava"), quiet=True)
    assert (run / "likelihood" / "config.json").exists()


def test_an_image_that_is_missing_stops_before_training(data, tmp_path):
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    rows[1]["messages"][0]["images"] = ["gone.png"]
    file = data.with_name("broken.jsonl")
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=r"broken.jsonl: row 2: turn 1: image .*gone.png: no such file"):
        train(settings(file), tmp_path / "run", tokenizer=families.processor("llava"), quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_was_damaged_since_is_told_of_in_a_line(tmp_path, workers):
    """Also where a worker process reads it, whose traceback torch makes part of the message."""
    file = tmp_path / "games.jsonl"
    write_trajectories(file, families.episodes(tmp_path / "games-images", 4))
    plan = settings(file, "sft", behaviour={**SHORT, "dataloader_num_workers": workers})
    train(plan, tmp_path / "whole", tokenizer=families.processor("llava"), cache_dir=tmp_path / "cache", quiet=True)
    for image in (tmp_path / "games-images").glob("*.png"):
        image.write_bytes(image.read_bytes()[:60])
    with pytest.raises(DataError) as caught:
        train(plan, tmp_path / "run", tokenizer=families.processor("llava"), cache_dir=tmp_path / "cache", quiet=True)
    assert re.fullmatch(r"rows [0-9, ]+: image .*\.png: cannot be read \(.*\); mend or drop it", str(caught.value))
