"""The studies in experiments/games: every method from the same start, with as many updates after it."""

from __future__ import annotations

from pathlib import Path

import pytest

from qsft.envs import scripted_policies
from qsft.study_file import Study, study_files
from qsft.training.runs import STAGES_OF

ROOT = Path(__file__).parents[1] / "experiments"
GAMES = {"wordle", "chess", "chess-careless", "endgames", "twenty-questions", "guess-my-city", "maze", "text-nav"}
METHODS = {"sft", "filtered-bc", "return-conditioned", "monte-carlo", "ilql", "cql", "awr", "archer-offline", "qsft"}


def test_each_game_has_its_study() -> None:
    assert {path.stem for path in study_files(ROOT / "games")} == GAMES


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("path", sorted((ROOT / "games").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_method_goes_on_from_one_model_for_as_many_updates(path: Path, quick: bool) -> None:
    study = Study.load(path, quick)
    assert study.row_env == path.stem
    assert study.env == study.tokenizer["environment"]
    scripted = [run.name for run in study.runs if run.method == "scripted"]
    assert len(scripted) == 2 and set(scripted) <= set(scripted_policies(study.env))
    trained = [run for run in study.runs if run.method != "scripted" and run.policy_of is None]
    assert {run.method for run in trained} == METHODS
    assert {len(settings) for settings in study.decoding.values()} == {5}
    epochs = study.likelihood["num_train_epochs"]
    assert study.critic["num_train_epochs"] == epochs
    for run in trained:
        if run.name in ("SFT", "SFT, one epoch"):
            assert run.behaviour_of is None
            continue
        assert run.behaviour_of == ("SFT, one epoch" if "after one epoch" in run.name else "SFT")
        longer = 3 if "three times as many steps" in run.name else 1
        if not any(run.method in methods for methods in STAGES_OF.values()):
            passes = run.settings["behaviour"].get("num_train_epochs", study.behaviour["num_train_epochs"])
            # the filtered episodes are fewer, and are read as many times more often
            share = run.settings["filter_share"] if run.method == "filtered-bc" else 1.0
            as_many = passes * share == pytest.approx(epochs * longer, rel=0.01)
            assert as_many or (path.stem, run.method) == ("wordle", "filtered-bc"), run.name
