"""The studies in experiments/games: every method from the same start, with as many updates after it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from qsft.envs import make, scripted_policies
from qsft.evaluation import ResultsFile
from qsft.policies.chats import Messages
from qsft.study import run_study
from qsft.study_file import UNTRAINED, Study, study_files
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
    trained = [run for run in study.runs if run.method not in UNTRAINED and run.policy_of is None]
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


#: what is drawn in each game, and answers that its rules name as examples with the beginning of what the game says to them
EXAMPLES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "wordle": ({"secret": "trace"}, {"crane": "1cy 2rg 3ag 4nb 5eg"}),
    "chess": (
        {},
        {"e4": "Ke1 Qd1 Ra1 Rh1 Bc1 Bf1 Nb1 Ng1 Pa2 Pb2 Pc2 Pd2 Pe4", "Nf3": "Ke1 Qd1 Ra1 Rh1 Bc1 Bf1 Nb1 Nf3"},
    ),
    "endgames": ({}, {}),
    "twenty-questions": (
        {"object": "cat"},
        {"Is it an animal?": "Yes", "Does it need electricity?": "No", "Is it a cat?": "Yes"},
    ),
    "guess-my-city": (
        {"city": "Paris"},
        {
            "What continent is your city on?": "It is in Europe",
            "What is the weather like in your city?": "It is ",
            "Is it by the sea?": "No",
            "Is your city a capital?": "Yes",
            "Are you from Paris?": "Yes",
        },
    ),
    "maze": ({}, {f"move {way}": "There " for way in ("up", "down", "left")}),
    "text-nav": ({}, {}),
}


@pytest.mark.parametrize("path", sorted((ROOT / "games").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_rules_that_a_chat_model_is_told_are_in_words_that_the_game_knows(path: Path) -> None:
    study = Study.load(path)
    (prompted,) = [run for run in study.runs if run.method == "react"]
    pins, examples = EXAMPLES[study.env]
    game = make(study.env, **study.env_options)
    game.reset(seed=0, options=pins)
    for answer, said in examples.items():
        assert answer in prompted.settings["instructions"]
        # a rule in a model's own words, and an example of the data, which is written as the game reads it
        assert game.typed_action(game.typed_action(answer).strip()) == game.typed_action(answer)
        assert game.step(game.typed_action(answer))[0].startswith(said)


def test_a_chat_model_plays_a_study_of_a_game(tmp_path: Path) -> None:
    study = Study.load(ROOT / "games/text-nav.yaml", quick=True)
    study = dataclasses.replace(
        study, collect={"train": study.collect["train"] | {"episodes": 20}}, test=study.test | {"episodes": 3}
    )
    asked: list[Messages] = []

    class Wanderer:
        name = "wanderer"

        def __call__(self, conversations: Sequence[Messages], seed: int) -> list[str]:
            asked.extend(conversations)
            ways = [re.findall(r"go \w+", str(messages[-1]["content"]))[0] for messages in conversations]
            return [f"Thought: on.\nAction: {way}" for way in ways]

    results = tmp_path / "results.json"
    run_study(study, tmp_path, results, [0], "test", ["ReAct"], progress=False, chat=Wanderer())
    (row,) = ResultsFile(results).rows()
    assert (row.env, row.method, row.config, row.episodes) == ("text-nav", "react", "ReAct", 3)
    assert row.extra["model"] == "wanderer"
    system = asked[0][0]["content"]
    assert "one of the admissible commands" in system and system.count("An example of a good episode ") == 2
    assert len(asked) == 3 * 15  # fifteen commands an episode
