"""Who plays, on the command line: runs and their saved decoding, devices, prompted chat models."""

from __future__ import annotations

import json

import pytest

from qsft import endpoint
from qsft.cli import main
from qsft.policies import load_policy
from tests.fake_endpoint import reply, serve

CONFIG = """
tokenizer: {environment: wordle, observation: tiles}
model: {model_type: gpt2, n_layer: 1, n_embd: 16, n_head: 2, n_inner: 16, n_positions: 96}
behaviour: {max_steps: 1, logging_steps: 1, save_steps: 1, use_cpu: true}
likelihood: {max_steps: 1, logging_steps: 1, save_steps: 1, use_cpu: true, return_low: -6, return_high: 0}
"""
ENV = ["--env", "wordle", "--env-option", "observation=tiles", "--episodes", "4", "--device", "cpu"]


def one_line(capsys, command, match):
    assert main(command) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line and "Loading weights" not in line]
    assert len(error) == 1
    assert match in error[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A config that all methods share, data, and a run of each of three methods."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "shared.yaml").write_text(CONFIG)
    collect = "collect wordle --policy mixture --episodes 32 --env-option observation=tiles --out"
    assert main([*collect.split(), str(folder / "games.jsonl")]) == 0
    for method in ("qsft", "return-conditioned"):
        command = ["train", method, "--config", str(folder / "shared.yaml"), "--data", str(folder / "games.jsonl")]
        assert main([*command, "--out", str(folder / method)]) == 0
    return folder


class TestTraining:
    def test_a_config_serves_all_methods(self, folder, tmp_path, capsys):
        command = ["train", "sft", "--config", str(folder / "shared.yaml"), "--data", str(folder / "games.jsonl")]
        assert main([*command, "--out", str(tmp_path / "run")]) == 0
        assert "shared.yaml: likelihood: sft does not read it" in capsys.readouterr().err
        assert json.loads((tmp_path / "run" / "run.json").read_text())["settings"]["likelihood"] == {}

    def test_so_does_a_setting_of_another_method(self, folder, tmp_path, capsys):
        (tmp_path / "more.yaml").write_text((folder / "shared.yaml").read_text() + "filter_share: 0.5\n")
        command = ["train", "sft", "--config", str(tmp_path / "more.yaml"), "--data", str(folder / "games.jsonl")]
        assert main([*command, "--out", str(tmp_path / "run")]) == 0
        assert "more.yaml: filter_share: sft does not read it" in capsys.readouterr().err
        assert main([*command, "--out", str(tmp_path / "other"), "--set", "filter_share=0.4"]) == 2
        assert capsys.readouterr().err.splitlines()[-1] == "qsft: filter_share: sft does not read it; remove it."

    def test_a_stage_asked_for_on_the_command_line_is_refused(self, folder, tmp_path, capsys):
        command = [
            "train",
            "sft",
            "--data",
            str(folder / "games.jsonl"),
            "--model",
            "m",
            "--out",
            str(tmp_path / "run"),
        ]
        one_line(capsys, [*command, "--set", "likelihood.gamma=0.5"], "likelihood: sft has no such stage")

    def test_a_models_config_alone(self, folder, tmp_path, capsys):
        (tmp_path / "model.json").write_text('{"model_type": "gpt2"}')
        command = ["train", "sft", "--data", str(folder / "games.jsonl"), "--model", str(tmp_path / "model.json")]
        one_line(
            capsys, [*command, "--out", str(tmp_path / "run")], "needs one; give its path or hub id, with --set tok"
        )
        assert not (tmp_path / "run").exists()

    def test_rows_longer_than_the_model(self, folder, tmp_path, capsys):
        """Return tokens lengthen rows: one for each turn."""
        command = [
            "train",
            "return-conditioned",
            "--config",
            str(folder / "shared.yaml"),
            "--set",
            "model.n_positions=72",
        ]
        command += ["--data", str(folder / "games.jsonl"), "--out", str(tmp_path / "run")]
        assert main(command) == 2
        assert "tokens and the model 72 positions; set behaviour.max_length" in capsys.readouterr().err
        assert not (tmp_path / "run").exists()

    def test_several_processes(self, folder, tmp_path, capsys, monkeypatch):
        monkeypatch.setenv("WORLD_SIZE", "2")
        command = ["train", "qsft", "--config", str(folder / "shared.yaml"), "--data", str(folder / "games.jsonl")]
        one_line(capsys, [*command, "--out", str(tmp_path / "run")], "start one process, without torchrun")
        assert not (tmp_path / "run").exists()


class TestDecoding:
    def test_a_saved_choice_is_the_runs_own(self, folder, capsys):
        run = folder / "qsft"
        line = "--extraction value --beta 8 --support 0.1 --temperature 0 --beams 2 --save-decoding"
        chosen = line.split()
        found = []
        for options in (chosen, [], ["--temperature", "0", "--extraction", "product", "--beams", "1"]):
            path = folder / "row.json"
            assert main(["evaluate", str(run), *ENV, *options, "--json", str(path)]) == 0
            found.append({name: value for name, value in json.loads(path.read_text()).items() if name != "seconds"})
        assert found[0] == found[1]
        assert json.loads((run / "decoding.json").read_text()) == {
            "extraction": "value", "beta": 8.0, "eta": 1.0, "support": 0.1, "temperature": 0.0, "beams": 2,
        }  # fmt: skip
        policy = load_policy(run)
        assert (policy.extraction.kind, policy.extraction.beta, policy.temperature, policy.beams) == (
            "value",
            8.0,
            0.0,
            2,
        )
        policy = load_policy(run, beams=1, temperature=0.5)
        assert (policy.extraction.kind, policy.temperature, policy.beams) == ("value", 0.5, 1)

    def test_a_run_collects(self, folder, tmp_path, capsys):
        out = tmp_path / "games.jsonl"
        options = [
            "--env-option",
            "observation=tiles",
            "--temperature",
            "1",
            "--beams",
            "1",
            "--device",
            "cpu",
            "--out",
            str(out),
        ]
        assert main(["collect", "wordle", "--policy", str(folder / "qsft"), "--episodes", "3", *options]) == 0
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        assert [row["metadata"]["episode"] for row in rows] == [0, 1, 2]
        assert {row["metadata"]["policy"] for row in rows} == {"qsft"}
        command = ["collect", "wordle", "--policy", "best", "--episodes", "3", "--out", str(out)]
        one_line(capsys, command, "nor a scripted policy")

    def test_what_a_run_is_asked_for(self, folder, capsys):
        run = str(folder / "return-conditioned")
        assert main(["evaluate", run, *ENV, "--target-return", "-3", "--save-decoding"]) == 0
        assert load_policy(run).target_return == -3.0
        assert load_policy(run, target_return=-1.0).target_return == -1.0
        capsys.readouterr()
        one_line(capsys, ["evaluate", run, *ENV, "--target-return", "7"], "target_return: 7 is outside of the returns")
        one_line(
            capsys,
            ["evaluate", str(folder / "qsft"), *ENV, "--target-return", "-1"],
            "only a return-conditioned policy",
        )

    def test_a_file_that_is_no_decoding(self, folder, tmp_path, capsys):
        run = folder / "qsft"
        before = (run / "decoding.json").read_text() if (run / "decoding.json").exists() else None
        for content in ("{", "[1]", '{"betta": 3}', '{"extraction": "best"}', '{"beams": "many"}'):
            (run / "decoding.json").write_text(content)
            one_line(capsys, ["evaluate", str(run), *ENV], "decoding.json: is not a decoding")
        (run / "decoding.json").unlink() if before is None else (run / "decoding.json").write_text(before)

    def test_legal_where_nothing_tells_what_is(self, folder, capsys):
        command = ["evaluate", str(folder / "qsft"), *ENV, "--only-legal"]
        one_line(capsys, command, "--only-legal: wordle: its texts do not tell which actions are legal")

    def test_a_device_that_is_not_there(self, folder, capsys):
        for device in ("cuda:77", "abacus"):
            command = ["play", str(folder / "qsft"), "--env", "wordle", "--device", device]
            one_line(capsys, command, f"--device: {device!r} cannot be used")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["random", "--save-decoding"], "--save-decoding: 'random' is not the folder of a run"),
        (["random", "--temperature", "1"], "--temperature: 'random' is not the folder of a run"),
        (["random", "--model", "m"], "--model: is for react and few-shot"),
        (["random", "--only-legal"], "--only-legal: 'random' is not the folder of a run"),
        (["react"], "--model: react needs one"),
        (["react", "--model", "m", "--beams", "2"], "--beams: 'react' is not the folder of a run"),
        (["react", "--model", "m", "--timeout", "3"], "--timeout: needs --endpoint"),
        (["react", "--model", "m", "--endpoint"], "endpoint: base_url='' is no http address"),
        (["react", "--model", "m", "--endpoint", "http://h/v1", "--timeout", "0"], "endpoint: timeout=0"),
        (["react", "--model", "m", "--endpoint", "http://h/v1", "--shots", "2"], "--shots: needs --examples"),
        (["react", "--model", "m", "--endpoint", "http://h/v1", "--instructions", "no.txt"], "--instructions: no.txt"),
        (["few-shot", "--model", "m", "--endpoint", "http://h/v1", "--examples", "no.jsonl"], "no such file"),
    ],
)
def test_options_that_do_not_fit(options, match, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    one_line(capsys, ["evaluate", *options, "--env", "wordle"], match)


class TestChats:
    def test_a_served_model_plays(self, folder, tmp_path, monkeypatch, capsys):
        (tmp_path / "rules.txt").write_text("Find the word of five letters.")
        path = tmp_path / "row.json"
        with serve() as server:
            monkeypatch.setenv("OPENAI_API_KEY", "secret")
            monkeypatch.setenv("OPENAI_BASE_URL", server.url)
            server.answer = lambda number, body: (200, reply("Thought: who knows\nAction: crane"))
            command = ["evaluate", "react", "--env", "wordle", "--episodes", "3", "--model", "small", "--endpoint"]
            options = ["--instructions", str(tmp_path / "rules.txt"), "--examples", str(folder / "games.jsonl")]
            options += ["--shots", "2", "--max-tokens", "99", "--temperature", "0.5", "--json", str(path)]
            assert main([*command, *options]) == 0
            request = server.requests[0]
            assert server.headers[0] == "Bearer secret"
        assert (request["model"], request["max_tokens"], request["temperature"]) == ("small", 99, 0.5)
        system = request["messages"][0]["content"]
        assert "Find the word of five letters." in system
        assert system.count("An example of a good episode") == 2
        row = json.loads(path.read_text())
        assert (row["policy"], row["episodes"], row["errors"]) == ("react", 3, 0)
        assert "broken_off" not in row
        assert "react" in capsys.readouterr().out

    def test_when_it_dies_what_was_played_is_kept(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(endpoint.time, "sleep", lambda seconds: None)
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        path = tmp_path / "row.json"
        command = [
            "evaluate",
            "few-shot",
            "--env",
            "wordle",
            "--episodes",
            "6",
            "--batch-size",
            "2",
            "--model",
            "small",
        ]
        with serve() as server:
            # games of six wrong guesses, two at a time: four games are over after 24 answers
            server.answer = lambda number, body: (200, reply("zzzzz")) if number <= 24 else (503, b"")
            command += ["--endpoint", server.url, "--retries", "1", "--json", str(path)]
            assert main(command) == 2
        shown = capsys.readouterr()
        assert "few-shot" in shown.out
        assert "gives no answer (HTTP 503" in shown.err
        row = json.loads(path.read_text())
        assert row["episodes"] == 4
        assert "HTTP 503" in row["broken_off"]

    def test_dead_from_the_start(self, tmp_path, monkeypatch, capsys):
        path = tmp_path / "row.json"
        with serve() as server:
            server.answer = lambda number, body: (401, b"")
            command = ["evaluate", "react", "--env", "wordle", "--model", "m", "--endpoint", server.url]
            one_line(capsys, [*command, "--json", str(path)], "HTTP 401")
        assert not path.exists()

    def test_watching_one(self, capsys):
        with serve() as server:
            server.answer = lambda number, body: (200, reply("Action: false"))
            command = ["play", "react", "--env", "wordle", "--pin", "secret=false", "--model", "m"]
            assert main([*command, "--endpoint", server.url]) == 0
        assert "f a l s e" in capsys.readouterr().out
