"""Studies: a pretrained model that all runs start from."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from qsft.cli import main
from qsft.errors import ConfigError
from qsft.evaluation import ResultsFile
from qsft.models.scratch import bpe_tokenizer
from qsft.pretrain import pretrain
from qsft.study import collect_data, made_by, run_study, symbol_tokenizer, train_run
from qsft.study_file import Study
from qsft.study_start import stage_one
from qsft.training import RunSettings

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
STAGE = "{max_steps: 2, logging_steps: 1, save_steps: 2, use_cpu: true, per_device_train_batch_size: 4}"
STUDY = f"""
env: twenty-questions
collect:
  all: {{policy: population, episodes: 12, seed: 5}}
  others: {{policy: population, episodes: 12, seed: 5}}
model: {{model_type: gpt2, n_layer: 1, n_embd: 16, n_head: 2, n_positions: 512}}
pretrain: {{texts: 40, vocabulary: 400, {STAGE[1:]}
behaviour: {STAGE}
select: {{episodes: 2, seed: 1}}
test: {{episodes: 2, seed: 2}}
decoding: {{supervised: [{{temperature: 0}}]}}
runs:
  - {{name: SFT, method: sft, data: all, decoding: supervised}}
  - {{name: other, method: sft, data: others, decoding: supervised}}
"""


@pytest.fixture
def study(tmp_path: Path) -> Study:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY)
    return Study.load(path)


def test_data_of_another_study_are_refused(study: Study, tmp_path: Path) -> None:
    path = collect_data(study, "all", tmp_path, 0)
    assert collect_data(study, "all", tmp_path, 0) == path
    plan = study.collect["all"]
    for field, changed in (("policy", {"policy": "random"}), ("seed", {"seed": 6}), ("episodes", {"episodes": 13})):
        other = dataclasses.replace(study, collect={"all": plan | changed})
        with pytest.raises(
            ConfigError, match=rf"all-0.jsonl: holds 12 episodes of another collection .*{field} differ"
        ):
            collect_data(other, "all", tmp_path, 0)
    other = dataclasses.replace(study, env_options={"objects": None})
    with pytest.raises(ConfigError, match="env_options differ"):
        collect_data(other, "all", tmp_path, 0)


def test_rows_of_other_settings_are_not_taken_for_this_studys(tmp_path: Path) -> None:
    path, results = tmp_path / "study.yaml", tmp_path / "results.json"
    path.write_text(STUDY.replace("name: SFT, method: sft, data: all", "name: population, method: scripted"))
    study = Study.load(path)

    def run(plan: Study) -> list:
        return run_study(plan, tmp_path / "work", results, [0], "command", ["population"], progress=False)

    assert len(run(study)) == 1 and run(study) == []
    grid = dataclasses.replace(study, decoding={**study.decoding, "another": [{"temperature": 1}]})
    assert run(grid) == [], "what the run does not read makes no difference"
    for other in (
        dataclasses.replace(study, test={"episodes": 3, "seed": 2}),
        dataclasses.replace(study, env_options={"objects": None}),
    ):
        with pytest.raises(ConfigError, match=r"results.json: the row of 'population', seed 0, was made with other"):
            run(other)
    assert made_by(study, study.runs[1]) != made_by(
        dataclasses.replace(study, behaviour={**study.behaviour, "learning_rate": 1.0}), study.runs[1]
    )


def test_runs_start_from_one_pretrained_model(study: Study, tmp_path: Path) -> None:
    folders = [train_run(study, run, tmp_path, seed, quiet=True)[0] for run in study.runs for seed in (0, 1)]
    starts = {json.loads((folder / "run.json").read_text())["settings"]["model"] for folder in folders}
    assert starts == {str(tmp_path / "pretrained")}
    tokenizer = AutoTokenizer.from_pretrained(folders[0])
    assert tokenizer.get_vocab() == AutoTokenizer.from_pretrained(tmp_path / "pretrained").get_vocab()
    assert len(tokenizer) == 400
    weights = tmp_path / "pretrained/model.safetensors"
    made = weights.stat().st_mtime_ns
    assert pretrain(study.pretrain or {}, study.env, {}, study.model, tmp_path, quiet=True) == weights.parent
    assert weights.stat().st_mtime_ns == made


def test_rows_tell_which_weights_they_went_on_from(study: Study, tmp_path: Path) -> None:
    first, other = study.runs
    runs = [
        first,
        dataclasses.replace(first, name="on", behaviour_of="SFT"),
        dataclasses.replace(first, name="shown", policy_of="on"),
        dataclasses.replace(other, settings={"behaviour": {"learning_rate": 0.1}}),
    ]
    plan = dataclasses.replace(study, runs=runs)

    def starts(only: tuple[str, ...] = ()) -> dict[str, tuple[str, str]]:
        done = run_study(plan, tmp_path / "work", tmp_path / "work.json", [0], "test", only, progress=False)
        return {str(f.row.config): tuple(f.row.extra["stage_one"][key] for key in ("run", "weights")) for f in done}

    found = starts()
    assert found["SFT"][0] == "SFT" and found["SFT"] == found["on"] == found["shown"]
    assert found["other"][0] == "other" and found["other"][1] != found["SFT"][1]
    weights = tmp_path / "work/seed-0/SFT/model.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    (tmp_path / "work.json").unlink()
    shutil.rmtree(tmp_path / "work/seed-0/on")
    again = starts(("on",))
    assert again["on"][0] == "SFT" and again["on"][1] != found["on"][1], "a stage 1 of other weights"


def test_a_run_of_another_stage_one_is_refused(study: Study, tmp_path: Path) -> None:
    """Stage 1 is trained again with other settings; what went on from the old one is not its own any more."""
    first, _ = study.runs
    plan = dataclasses.replace(
        study,
        runs=[
            first,
            dataclasses.replace(first, name="on", behaviour_of="SFT"),
            dataclasses.replace(first, name="shown"),
        ],
    )
    plan.runs[2] = dataclasses.replace(plan.runs[2], policy_of="on")
    runs, on = tmp_path / "seed-0", plan.runs[1]
    folder, _ = train_run(plan, on, tmp_path, 0, quiet=True)
    before = stage_one(plan, on, runs)
    assert train_run(plan, on, tmp_path, 0, quiet=True)[0] == folder, "the same stage 1"
    shutil.rmtree(runs / "SFT")
    other = dataclasses.replace(
        plan, runs=[dataclasses.replace(first, settings={"behaviour": {"learning_rate": 0.1}}), *plan.runs[1:]]
    )
    with pytest.raises(ConfigError, match="on: goes on from another training of 'SFT' than the one that is there now"):
        train_run(other, on, tmp_path, 0, quiet=True)
    assert stage_one(other, on, runs) == stage_one(other, plan.runs[2], runs) == before, "what it did go on from"
    shutil.rmtree(folder)
    train_run(other, on, tmp_path, 0, quiet=True)
    assert stage_one(other, on, runs)["weights"] != before["weights"]


def test_a_row_that_another_command_made_meanwhile_stays(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    results = tmp_path / "results.json"
    run_study(study, tmp_path / "work", results, [0], "first", progress=False)
    there = results.read_text()
    asked: list[object] = []
    has = ResultsFile.has

    def not_yet(file: ResultsFile, key: object) -> bool:
        asked.append(key)
        return asked.count(key) > 1 and has(file, key)

    monkeypatch.setattr(ResultsFile, "has", not_yet)
    assert run_study(study, tmp_path / "other", results, [0], "second", progress=False) == []
    assert results.read_text() == there
    assert "another command made the row of other, seed 0, meanwhile; it stays" in caplog.text


def test_a_folder_of_studies_does_the_runs_that_are_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, table, scripted in (("a", "first", "population"), ("b", "second", "random")):
        text = STUDY.replace("name: SFT, method: sft, data: all", f"name: {scripted}, method: scripted")
        (tmp_path / f"{name}.yaml").write_text(text + f"table: {table}\n")
    results = tmp_path / "results.json"
    command = ["reproduce", str(tmp_path), "--results", str(results), "--work", str(tmp_path / "work"), "--seeds", "1"]
    assert main([*command, "--only", "nobody"]) == 2
    assert "--only: no run is called 'nobody'; there are population, other, random" in capsys.readouterr().err
    for jobs in ("1", "2"):
        assert main([*command, "--only", "random", "--jobs", jobs]) == 0
        (row,) = ResultsFile(results).rows()
        assert (row.env, row.config, row.seed) == ("second", "random", 1)
        assert row.command == f"qsft reproduce {tmp_path / 'b.yaml'} --seeds 1"
        results.unlink()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: other", "name: 5", "run 5: name, method and decoding are names; write them as text"),
        ("name: other", "name: ''", "run '': name, method and decoding are names"),
        ("decoding: supervised}\n", "decoding: [supervised]}\n", "run 'SFT': name, method and decoding are names"),
        ("policy: population", "policy: 4", "collect: all: policy: 4 is no name of a policy"),
        ("seed: 5}", "seed: 5, env_options: [1]}", "collect: all: env_options: must hold NAME: VALUE pairs"),
        ("seed: 5}", "seed: -1}", "collect: all: seed: -1 is no whole number from 0 to"),
        (
            "seed: 5}",
            "seed: 5, env_options: {size: 1}}",
            "collect: all: environment 'twenty-questions' has no option 'size'",
        ),
        ("seed: 1}", "seed: 1, env_options: {size: 1}}", "select: environment 'twenty-questions' has no option 'size'"),
        ("seed: 1}", f"seed: {2**70}}}", "select: seed is missing, or no whole number from 0 to"),
        ("temperature: 0}", "temperature: 0}, {temperature: 0}", r"\{'temperature': 0\} is there twice; take one out"),
        ("temperature: 0}", "target_return: 0}", "target_return is of return-conditioned, not of sft"),
        ("name: other, ", "name: other, env_options: {size: 1}, ", "run 'other': environment .* has no option 'size'"),
    ],
)
def test_what_is_wrong_in_a_study_is_told_before_anything_is_done(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "study.yaml"
    assert old in STUDY
    path.write_text(STUDY.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message):
        Study.load(path)


def test_the_time_of_all_sittings_counts(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("qsft.study.time", SimpleNamespace(perf_counter=lambda: now[0]))

    def sitting(seconds: float, ends: type[BaseException] | None = None) -> float:
        def train(plan: RunSettings, folder: Path, **options: object) -> None:
            now[0] += seconds
            folder.mkdir(exist_ok=True, parents=True)
            record = {"settings": {"method": "sft"}, "trajectories": {}, "reply_tokens": 1, "finished": ends is None}
            (folder / "run.json").write_text(json.dumps(record))
            if ends is not None:
                raise ends

        monkeypatch.setattr("qsft.study.train", train)
        return train_run(dataclasses.replace(study, pretrain=None), study.runs[0], tmp_path, 0)[1]

    for seconds, ends in ((7.0, KeyboardInterrupt), (5.0, RuntimeError)):
        with pytest.raises(ends):
            sitting(seconds, ends)
    assert sitting(3.0) == 15.0
    assert sitting(100.0) == 15.0, "a finished run is only looked at"


def test_a_pretrained_model_speaks_the_studys_tokenizer(study: Study, tmp_path: Path) -> None:
    symbols = {"environment": "twenty-questions", "whole_actions": True}
    settings = {key: value for key, value in (study.pretrain or {}).items() if key != "vocabulary"}
    whole = dataclasses.replace(study, tokenizer=symbols, pretrain=settings)
    folder, _ = train_run(whole, study.runs[0], tmp_path, 0, quiet=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.get_vocab() == symbol_tokenizer(symbols, "here").get_vocab()
    with pytest.raises(ConfigError, match="vocabulary: the study's tokenizer has one"):
        pretrain({**settings, "vocabulary": 400}, "twenty-questions", {}, {}, tmp_path / "other", tokenizer=tokenizer)


def test_what_pretraining_would_not_use_is_refused(study: Study) -> None:
    dataclasses.replace(study, tokenizer=None).check("here")
    with pytest.raises(ConfigError, match="here: tokenizer: gpt2 would not be used, as pretrain makes a model"):
        dataclasses.replace(study, tokenizer="gpt2").check("here")
    for own in ("model", "tokenizer"):
        run = dataclasses.replace(study.runs[0], settings={own: "gpt2"})
        with pytest.raises(ConfigError, match=f"here: run '{run.name}': settings: {own} would not be used"):
            dataclasses.replace(study, runs=[run, *study.runs[1:]]).check("here")


@pytest.mark.parametrize("missing", ["texts", "vocabulary"])
def test_pretraining_needs_its_sizes(missing: str, tmp_path: Path) -> None:
    settings = {"texts": 10, "vocabulary": 300}
    del settings[missing]
    with pytest.raises(ConfigError, match=f"pretrain: {missing} is missing"):
        pretrain(settings, "twenty-questions", {}, {}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_bpe_spells_any_text_and_keeps_the_newline_apart() -> None:
    texts = ["Is a cat an animal? Yes. Does a cat have fur? Yes.\n"] * 20
    tokenizer = bpe_tokenizer(texts, 300)
    assert 258 < len(tokenizer) <= 300
    for text in ("Is a cat\nan animal?\n", "Größe: 3€\n", "  two  blanks "):
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("Does a cat have fur?\nYes.\n")["input_ids"])
    assert len(tokens) <= 12 and sum(bool(re.search("Ċ", token)) for token in tokens) == tokens.count("Ċ") == 2


@pytest.mark.parametrize(
    "path", sorted(EXPERIMENTS.glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_studies_of_the_repository(path: Path) -> None:
    study = Study.load(path)
    names = [run.name for run in study.runs]
    assert len({*names}) == len(names)
    for run in study.runs:
        assert run.method == "scripted" or run.data in study.collect, run.name
        assert run.behaviour_of in (None, *names), run.name
    if "quick" in yaml.safe_load(path.read_text(encoding="utf-8")):
        assert [run.name for run in Study.load(path, quick=True).runs] == names


NASTY = {
    "a grid's typing error": ("[{temperature: 0}]", "[{temprature: 0}]", "decoding: supervised: .*temprature"),
    "a collection's unknown field": ("  all: {", "  all: {window: 4, ", "collect: all: 'window' is unknown"),
    "unknown, of episodes": ("select: {", "select: {split: eval, ", "select: 'split' is unknown"),
    "a text for a number": ("episodes: 12, seed: 5", "episodes: many, seed: 5", "all: episodes: 'many' is no whole"),
    "a flag that is a text": ("data: others,", "data: others, only_legal: yes please,", "'other': only_legal: 'yes pl"),
    "values of a method without": ("[{temperature: 0}]", "[{extraction: value}]", "'value' reads values that sft has not"),
    "rules untold": ("env: twenty-questions", "env: twenty-questions\nonly_legal: true", "do not tell what is legal"),
    "an empty section": ("select: {", "critic: null\nselect: {", "critic: must hold"),
    "no grid": ("[{temperature: 0}]", "{temperature: 0}", "decoding: supervised: give a list"),
    "a table of no name": ("env: twenty-questions", "env: twenty-questions\ntable: 3", "env and table are names"),
    "a setting of no name": ("data: others,", "data: others, settings: {likelihod: {}},", "'likelihod' is none of"),
    "the study's own": ("data: others,", "data: others, settings: {seed: 3},", "settings: 'seed' is none of"),
    "a stage that is not": ("data: others,", "data: others, settings: {likelihood: {gamma: 1}},", "sft has no such stage"),
    "a start that is itself": ("data: others,", "data: others, behaviour_of: other,", "leads back to 'other'"),
    "no seed": ("select: {episodes: 2, seed: 1}", "select: {episodes: 2}", "select: seed is missing"),
    "no episodes": ("test: {episodes: 2", "test: {episodes: 0", "test: episodes is missing, or no whole"),
    "a negative seed": ("select: {episodes: 2, seed: 1}", "select: {episodes: 2, seed: -1}", "select: seed is mis"),
    "options that are none": ("test: {", "test: {env_options: 5, ", "test: env_options: must hold"),
    "a scripted policy of no name": ("name: other, method: sft", "name: populaton, method: scripted", "'populaton': is no"),
    "one seed for both": ("test: {episodes: 2, seed: 2}", "test: {episodes: 2, seed: 1}", "select and test have the same"),
    "an unknown method": ("method: sft, data: all", "method: stf, data: all", "run 'SFT': method 'stf' is unknown"),
    "unknown data": ("data: others", "data: piece", "run 'other': data 'piece' is not collected"),
    "an unknown start": ("data: others,", "data: others, behaviour_of: STF,", "behaviour_of 'STF' is not a run"),
    "another's policy": ("method: sft, data: others", "method: awr, policy_of: SFT", "no run that trains awr"),
    "training for nothing": ("data: others,", "policy_of: SFT, settings: {seed: 5},", "settings .* would not be used"),
    "two of a name": ("name: other", "name: SFT", "run 'SFT': there are two of this name"),
    "a grid that is none": ("decoding: {supervised: [{temperature: 0}]}", "decoding: null", "decoding: must hold"),
    "a grid's text for a number": ("[{temperature: 0}]", "[{temperature: hot}]", "temperature: 'hot' is no number"),
    "a grid's empty value": ("[{temperature: 0}]", "[{extraction: value, beta: }]", "supervised: .*beta: None is no number"),
    "a grid's wrong value": ("[{temperature: 0}]", "[{temperature: -1}]", "supervised: .*temperature: -1 must be finite"),
    "a grid's half beam": ("[{temperature: 0}]", "[{temperature: 0, beams: 2.5}]", "beams: 2.5 is no whole number"),
    "beams that sample": ("[{temperature: 0}]", "[{beams: 2}]", "beams: 2 with temperature 1.0; beam search needs"),
    "a grid's wrong return": ("[{temperature: 0}]", "[{target_return: best}]", "target_return: 'best' is no number"),
    "a stage's typing error": ("\nbehaviour: {max", "\nbehaviour: {mx", "run 'SFT': behaviour: .*mx_steps"),
    "a stage's wrong value": ("\nbehaviour: {", "\nbehaviour: {loss_chunk_size: 0, ", "loss_chunk_size: 0 must be"),
    "a run's stage": ("data: others,", "data: others, settings: {behaviour: {muon: 'on'}},", "behaviour: muon: 'on'"),
    "a critic's": ("sft, data: others,", "ilql, data: others, settings: {critic: {tau: 2}},", "critic: tau: 2 is outside"),
    "another critic's": ("sft, data: others,", "awr, data: others, settings: {critic: {tau: 1}},", "critic: .*'tau'"),
    "stage 2's": ("sft, data: others,", "qsft, data: others, settings: {likelihood: {form: x}},", "form: 'x' is"),
    "a stage that holds nothing": ("data: others,", "data: others, settings: {behaviour: },", "behaviour: must hold"),
    "a run's setting": ("sft, data: others,", "qsft, data: others, settings: {start_from: x},", "'other': start_from: 'x'"),
    "pretraining's typing error": ("400, max_steps", "400, mx_steps", "study.yaml: pretrain: .*mx_steps"),
    "pretraining's wrong number": ("texts: 40", "texts: few", "pretrain: texts: 'few' must be a whole number"),
    "pretraining's missing number": ("texts: 40, ", "", "pretrain: texts is missing"),
    "empty settings": ("data: others,", "data: others, settings: ,", "run 'other': settings: must hold"),
    "an empty number": ("\nbehaviour: {", "\nbehaviour: {weight_decay: , ", "behaviour: weight_decay: is empty"),
    "empty shots": ("sft, data: others,", "react, data: others, settings: {shots: },", "settings: shots: None must be"),
    "no YAML": ("env: twenty-questions", "env: [", "cannot be read as YAML"),
}  # fmt: skip


@pytest.mark.parametrize("case", NASTY)
def test_a_study_is_checked_before_it_is_run(case: str, tmp_path: Path) -> None:
    right, wrong, match = NASTY[case]
    assert right in STUDY
    path = tmp_path / "study.yaml"
    path.write_text(STUDY.replace(right, wrong))
    with pytest.raises(ConfigError, match=match) as raised:
        Study.load(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


CHESS = f"""
env: chess
env_options: {{opponent: random, observation: pieces, max_moves: 4}}
only_legal: true
collect: {{train: {{policy: random, episodes: 2}}}}
tokenizer: {{environment: chess, observation: pieces}}
model: {{model_type: gpt2, n_layer: 1, n_embd: 16, n_head: 2, n_positions: 512}}
behaviour: {STAGE}
select: {{episodes: 2, seed: 1}}
test: {{episodes: 4, seed: 2}}
decoding: {{supervised: [{{temperature: 1}}]}}
runs:
  - {{name: SFT, method: sft, decoding: supervised}}
  - {{name: "SFT, any move", method: sft, decoding: supervised, policy_of: SFT, only_legal: false}}
"""


def test_whoever_is_kept_to_the_rules_makes_no_illegal_move(tmp_path: Path) -> None:
    """An illegal move costs 1, and a model that was hardly trained makes little else."""
    path = tmp_path / "study.yaml"
    path.write_text(CHESS)
    study = Study.load(path)
    kept, free = (
        f.row for f in run_study(study, tmp_path / "work", tmp_path / "results.json", [0], "test", progress=False)
    )
    assert (kept.config, free.config) == ("SFT", "SFT, any move")
    assert kept.extra["only_legal"] is True and "only_legal" not in free.extra
    assert kept.return_mean == 0.0
    assert free.return_mean < -2.0


def test_a_study_for_a_gpu_is_right_without_one(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY.replace("use_cpu: true", "bf16: true"))
    assert Study.load(path).behaviour["bf16"]
