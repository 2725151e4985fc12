"""Studies of agents: held-out splits, kinds of tasks, chat models, pictures; and those in experiments/agents."""

from __future__ import annotations

import dataclasses
import math
import runpy
from collections import Counter
from pathlib import Path

import pytest

from qsft.cli import main
from qsft.data.files import load_trajectories
from qsft.envs import make, symbols
from qsft.envs.rollout import derive_seed
from qsft.evaluation import ResultsFile
from qsft.evaluation.statistics import success_interval
from qsft.policies import load_policy
from qsft.study import run_study
from qsft.study_file import Study, episode_options, study_files
from tests.fake_endpoint import reply, serve

ROOT = Path(__file__).parents[1]
METHODS = {"scripted", "react", "sft", "filtered-bc", "return-conditioned", "ilql", "awr", "archer-offline", "qsft"}

STUDY = """
env: alfworld
env_options: {max_steps: 12}
tokenizer: {environment: alfworld}
collect: {train: {policy: population, episodes: 12, seed: 1}}
model: {model_type: llama, num_hidden_layers: 1, hidden_size: 16, num_attention_heads: 2, intermediate_size: 16}
behaviour: {max_steps: 1, logging_steps: 1, save_steps: 1, use_cpu: true}
decoding: {supervised: [{temperature: 1}, {temperature: 0}]}
select: {episodes: 3, seed: 50, env_options: {split: seen}}
test: {episodes: 24, seed: 60, env_options: {split: unseen}}
runs:
  - {name: expert, method: scripted}
  - {name: prompted, method: react, settings: {shots: 1, instructions: "Keep the house."}}
  - {name: SFT, method: sft, decoding: supervised}
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY)
    return path


def command(study: Path, *options: str) -> list[str]:
    folder = study.parent
    places = ["--work", str(folder / "work"), "--results", str(folder / "results.json")]
    return ["reproduce", str(study), "--seeds", "0", *places, *options]


def test_rows_of_kinds_in_held_out_houses(study, monkeypatch):
    drawn: list[str] = []
    real = Study.load(study)

    def noting(name, **options):
        drawn.append(options["split"])
        return make(name, **options)

    monkeypatch.setattr("qsft.study.make", noting)
    run_study(
        real, study.parent / "work", study.parent / "results.json", [0], "test", ["expert", "SFT"], progress=False
    )
    assert set(drawn) == {"seen", "unseen"}, "selection and test; training is collected elsewhere"
    rows = {row.config: row for row in ResultsFile(study.parent / "results.json").rows()}
    expected = Counter()
    env = make("alfworld", **episode_options(real, real.test))
    for episode in range(24):
        env.reset(seed=derive_seed(60, 2, episode))
        for _ in range(12):
            info = env.step("look")[4]
        split, kind, _ = info["game"].split("/")
        assert split == "unseen"
        expected[kind] += 1
    for row in rows.values():
        kinds = row.extra["kinds"]
        assert {kind: part["episodes"] for kind, part in kinds.items()} == expected
        won = sum(part["episodes"] * part["success_rate"] for part in kinds.values())
        assert won / 24 == pytest.approx(row.success_rate)
        for part in kinds.values():
            estimate = success_interval(round(part["episodes"] * part["success_rate"]), part["episodes"])
            assert part["success_ci95"] == pytest.approx((estimate.low, estimate.high))
    assert rows["expert"].success_rate > 0.2 > rows["SFT"].success_rate


def test_a_chat_model_has_a_row_where_one_is_given(study, caplog):
    assert main(command(study, "--only", "prompted", "expert")) == 0
    assert "alfworld: prompted is left out: it needs --model" in caplog.text
    with serve() as server:
        server.answer = lambda number, body: (200, reply("Thought: hm.\nAction: look"))
        options = ["--model", "small", "--endpoint", server.url, "--max-tokens", "77"]
        assert main(command(study, "--only", "prompted", *options)) == 0
        system = server.requests[0]["messages"][0]["content"]
    assert {request["max_tokens"] for request in server.requests} == {77}
    assert "Keep the house." in system and system.count("An example of a good episode") == 1
    (row,) = [row for row in ResultsFile(study.parent / "results.json").rows() if row.method == "react"]
    assert (row.config, row.episodes, row.success_rate) == ("prompted", 24, 0.0)
    assert row.extra["model"] == "small"


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("name", ["alfworld", "webshop"])
def test_the_studies_in_experiments(name, quick):
    path = ROOT / "experiments/agents" / f"{name}.yaml"
    assert path in study_files(ROOT / "experiments/agents")
    study = Study.load(path, quick)
    assert {run.method for run in study.runs} == METHODS
    assert study.env == name
    small = {"products": 2000} if name == "webshop" else {}
    for part in (study.select, study.test):
        make(name, **episode_options(study, part), **small)
    splits = {episode_options(study, part)["split"] for part in (study.select, study.test)}
    assert len(splits) == 2 and "train" not in splits
    assert study.test["episodes"] >= 500
    options = {key: value for key, value in study.tokenizer.items() if key != "environment"}
    assert len(symbols(name, **options, **small)) < 2500
    first = {"SFT", "SFT, two epochs more"}  # stages 1 that others go on from
    trained = [run for run in study.runs if run.method not in ("scripted", "react") and run.name != "SFT"]
    assert all(run.behaviour_of in first for run in trained)
    assert {run.behaviour_of for run in trained if "more" not in run.name} == {"SFT"}


def small_games_with_pictures(study: Study) -> Study:
    """The study with games of three turns and two steps of training."""
    short = {"max_steps": 2, "save_steps": 2, "logging_steps": 1, "per_device_train_batch_size": 2}
    return dataclasses.replace(
        study,
        behaviour=study.behaviour | short,
        likelihood=study.likelihood | short,
        pretrain=study.pretrain | short | {"texts": 6},
        env_options=study.env_options | {"max_steps": 3},
        collect={name: plan | {"episodes": 6} for name, plan in study.collect.items()},
        decoding=study.decoding | {"supervised": [{"temperature": 1}]},
        select=study.select | {"episodes": 2},
        test=study.test | {"episodes": 4},
    )


def test_the_study_of_texts_and_pictures(tmp_path):
    """The games of the study of pictures, told as well; its rows have a table of their own."""
    folder = ROOT / "experiments/agents"
    study, pictures = (Study.load(folder / f"alfworld-{name}.yaml") for name in ("text-image", "image"))
    assert {run.method for run in study.runs} == METHODS - {"react"}
    assert study.env_options == pictures.env_options | {"text": "full"}
    for part in ("model", "tokenizer", "pretrain", "behaviour", "likelihood", "critic", "decoding", "select", "test"):
        assert getattr(study, part) == getattr(pictures, part), part
    names = ["SFT", "SFT, shown grey pictures", "Q-SFT, Monte-Carlo"]
    for _ in range(2):  # the second finds its rows
        run_study(
            small_games_with_pictures(study), tmp_path, tmp_path / "results.json", [0], "test", names, progress=False
        )
    rows = ResultsFile(tmp_path / "results.json").rows()
    assert [(row.env, row.config) for row in rows] == [("alfworld-text-image", name) for name in names]
    assert all(row.extra["kinds"] for row in rows), "rows know the types of tasks of their environment"
    for game in load_trajectories(tmp_path / "train-0.jsonl"):
        assert all(len(turn.images) == 1 for turn in game.turns if not turn.is_agent)
        assert "You are in the middle of a room" in game.turns[0].text


def test_the_study_of_pictures(tmp_path):
    """All of its rows at a small size, with the control: the policy of SFT, shown grey pictures, trains nothing."""
    path = ROOT / "experiments/agents/alfworld-image.yaml"
    assert path in study_files(ROOT / "experiments/agents")
    study = Study.load(path)
    assert {run.method for run in study.runs} == METHODS - {"react"}
    assert {run.name for run in study.runs if run.env_options.get("blank")} == {
        "SFT, shown grey pictures",
        "SFT, from grey pictures",
        "filtered BC, shown grey pictures",
        "SFT, of the expert's games, shown grey pictures",
        "SFT, of an expert that slips, shown grey pictures",
    }
    assert study.test["episodes"] >= 500
    study = small_games_with_pictures(study)
    names = [run.name for run in study.runs if run.method in ("scripted", "sft", "qsft")]
    done = run_study(study, tmp_path, tmp_path / "results.json", [0], "test", names, progress=False)
    rows = {finished.row.config: finished for finished in done}
    assert list(rows) == names
    seen, shown_grey, learnt_grey = (rows[f"SFT{end}"] for end in ("", ", shown grey pictures", ", from grey pictures"))
    assert shown_grey.folder == seen.folder != learnt_grey.folder
    shown = {image.name for image in (tmp_path / "corpus-images").iterdir()}
    assert len(shown) == 6 * (1 + 3), "tours, which the model is shown first"
    assert (shown_grey.row.extra["training_seconds"], shown_grey.row.extra["env_options"]) == (0.0, {"blank": True})
    pictures = {
        name: {image for game in finished.grid.trajectories for turn in game.turns for image in turn.images}
        for name, finished in rows.items()
        if finished.grid is not None
    }
    assert len(pictures["SFT, shown grey pictures"]) == len(pictures["SFT, from grey pictures"]) == 1
    assert len(pictures["SFT"]) > 4
    grey = next(iter(pictures["SFT, shown grey pictures"]))
    assert all((image.read_bytes() == grey) for image in (tmp_path / "blank-0-images").iterdir())
    table = runpy.run_path(str(ROOT / "experiments/agents/seeing.py"))["compare"](
        load_policy(seen.folder), study.env, study.env_options, "population", 3, 0
    )
    (with_pictures, grey_ones, difference) = (float(row.split("| ")[2].split()[0]) for row in table.splitlines()[2:])
    assert difference == pytest.approx(grey_ones - with_pictures, abs=0.002)
    vocabulary = len(symbols("alfworld-image", whole_actions=True))
    assert abs(with_pictures - math.log(vocabulary)) < 3.0, "nats, after two steps of training"
