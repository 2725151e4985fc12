"""The studies in experiments/robots: every method from the same start, on environments and symbols that exist."""

from pathlib import Path

import pytest

from qsft.envs import scripted_policies, symbols
from qsft.errors import ConfigError
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
