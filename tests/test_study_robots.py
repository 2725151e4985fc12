"""The studies in experiments/robots: every method from the same start, on environments and symbols that exist."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest

from qsft.envs import make, scripted_policies, symbols
from qsft.errors import ConfigError
from qsft.pretrain import pretrain
from qsft.study import symbol_tokenizer
from qsft.study_file import Study, study_files

ROBOTS = Path(__file__).parents[1] / "experiments/robots"
TASKS = sorted([*ROBOTS.glob("*.yaml"), *ROBOTS.glob("images/*.yaml")])
METHODS = {"bc", "filtered-bc", "return-conditioned", "cql", "ilql", "q-transformer", "qsft"}


def test_each_task_has_its_study():
    names = {path.stem for path in study_files(ROBOTS)}
    assert names == {"pick", "place", "drawer", "closed-drawer", "blocked-drawer"}
    assert {path.stem for path in study_files(ROBOTS / "images")} == {"pick", "closed-drawer"}


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("path", TASKS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_study(path, quick):
    study = Study.load(path, quick)
    assert study.env == path.stem == study.tokenizer["environment"]
    trained = [run for run in study.runs if run.method != "scripted"]
    assert {run.method for run in trained} == METHODS
    assert all(run.behaviour_of == "bc" for run in trained if run.name != "bc")
    assert all(run.name.startswith(run.method) for run in trained)
    steps = {stage["max_steps"] for stage in (study.behaviour, study.likelihood, study.critic)}
    assert len(steps) == 1, "as many updates for each"
    assert study.test["episodes"] >= 100
    # what play is told and shown is what the tokenizer knows
    told = {name: value for name, value in study.tokenizer.items() if name not in ("environment", "image_tokens")}
    assert told == study.env_options
    scripted = {run.name for run in study.runs if run.method == "scripted"}
    assert scripted == (set() if path.parent != ROBOTS else set(scripted_policies(study.env)))


def test_learning_curves_go_on_from_the_model_of_their_data():
    study = Study.load(ROBOTS / "curves/closed-drawer.yaml")
    for run in study.runs:
        updates, _, episodes = run.name.partition(", ")[2].partition(" of ")
        assert run.data == episodes and study.collect[run.data]["episodes"] == int(episodes)
        assert run.behaviour_of == (None if updates == "0" else f"bc, 0 of {episodes}")
        stage = {"bc": "behaviour", "q-transformer": "critic", "qsft": "likelihood"}[run.method]
        assert updates == "0" or run.settings[stage]["max_steps"] == int(updates)


def test_symbols_become_a_tokenizer_or_with_images_a_processor():
    pytest.importorskip("ogbench")
    settings = {"environment": "pick", "state_bins": 8, "action_bins": 4}
    tokenizer = symbol_tokenizer(settings, "study")
    assert set(symbols("pick", state_bins=8, action_bins=4)) <= set(tokenizer.get_vocab())
    processor = symbol_tokenizer({**settings, "image_tokens": 2}, "study")
    assert processor.image_tokens == 2
    with pytest.raises(ConfigError, match="study: tokenizer: give a path or hub id"):
        symbol_tokenizer({"state_bins": 8}, "study")
    with pytest.raises(ConfigError, match="study: tokenizer: image_tokens .* and patch_size .* are of two models"):
        symbol_tokenizer({**settings, "image_tokens": 2, "patch_size": 16}, "study")


def test_a_network_learns_to_see_before_it_acts(tmp_path):
    pytest.importorskip("ogbench")
    study = Study.load(ROBOTS / "images/pick.yaml", quick=True)
    options = {**study.env_options, "image_size": 32}
    try:
        env = make("pick", **options)
    except ConfigError as error:  # no OpenGL
        pytest.skip(str(error))
    settings = {**study.pretrain, "texts": 6, "max_steps": 20, "logging_steps": 10}
    processor = symbol_tokenizer({**study.tokenizer, "image_size": 32}, "study")
    folder = pretrain(settings, "pick", options, study.model, tmp_path, quiet=True, tokenizer=processor)
    table = runpy.run_path(str(ROBOTS / "images/seeing.py"))["table"](folder, env, 6, 0)  # what it has seen
    header, _, *rows = table.splitlines()
    read = {name: (float(error), float(spread)) for _, name, error, spread, _ in (re.split(r" *\| *", r) for r in rows)}
    assert list(read) == list(env.features)
    named = [turn.text for text in env.corpus(6) for turn in text.turns if turn.is_agent]
    told = np.array([env.state_tokens.parse(name) for name in named])
    assert header == f"| {len(told)} pictures | mean error | spread |"
    assert [spread for _, spread in read.values()] == pytest.approx(told.std(0).tolist(), abs=1e-4)
    assert sum(error < spread for error, spread in read.values()) >= 5, "it has learnt something of them"
