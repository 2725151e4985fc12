"""The documentation says what the code does: links, commands, defaults, metrics, and every example runs."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import runpy
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from qsft import cli
from qsft.settings_file import read_yaml
from tests.data import families

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = sorted(page.stem for page in (ROOT / "docs/commands").glob("*.md"))
TABLES = {  # class: the pages whose tables hold its settings
    "qsft.training.config:SFTConfig": ["methods/sft.md"],
    "qsft.training.config:QSFTConfig": ["methods/qsft.md"],
    "qsft.training.critic_config:CriticConfig": ["methods/ilql.md"],
    "qsft.training.critic_config:ILQLConfig": ["methods/ilql.md"],
    "qsft.training.critic_config:CQLConfig": ["methods/cql.md"],
    "qsft.training.critic_config:MonteCarloConfig": ["methods/monte-carlo.md"],
    "qsft.training.critic_config:QTransformerConfig": ["methods/q-transformer.md"],
    "qsft.training.critic_config:AWRConfig": ["methods/awr.md"],
    "qsft.training.critic_config:ArcherConfig": ["methods/archer-offline.md"],
    "qsft.training.runs:RunSettings": ["training.md", "methods/filtered-bc.md"],
    "qsft.models.extraction:Extraction": ["policy.md"],
    "qsft.study:Study": ["commands/reproduce.md"],
    "qsft.study:StudyRun": ["commands/reproduce.md"],
}
HUB_ID = '"Qwen/Qwen2.5-0.5B-Instruct"'


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def fences(page: Path) -> list[tuple[str, str]]:
    """Language and text of each fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def python_blocks(page: str) -> list[str]:
    return [text for language, text in fences(ROOT / page) if language == "python"]


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    found = set()
    for title in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE):
        title = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).strip().lower()
        found.add(re.sub(r"[^\w\- ]", "", title).replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links(page: Path) -> None:
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists():
            wrong.append(f"{link}: there is no {path}")
        elif anchor and anchor not in anchors(target):
            wrong.append(f"{link}: there is no such heading, there are {sorted(anchors(target))}")
    assert not wrong


def command_lines(page: Path) -> list[str]:
    text = "\n".join(text for _, text in fences(page)).replace("\\\n", " ")
    return [line for line in text.splitlines() if line.startswith("qsft ")]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_command_lines_parse(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line in command_lines(page):
        try:
            cli._parser().parse_args(shlex.split(line, comments=True)[1:])
        except SystemExit:
            pytest.fail(f"{line}: {capsys.readouterr().err}")


def verbs() -> dict[str, argparse.ArgumentParser]:
    actions = [a for a in cli._parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(actions[0].choices)


def test_every_command_has_its_page() -> None:
    assert sorted(verbs()) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_flags_of_a_command(command: str) -> None:
    parser = verbs()[command]
    rows = re.findall(r"^\| (`--.*?) \|", (ROOT / f"docs/commands/{command}.md").read_text(), re.MULTILINE)
    documented = {flag for row in rows for flag in re.findall(r"`(--[\w-]+)`", row)}
    known = {option for action in parser._actions for option in action.option_strings} - {"-h", "--help"}
    assert documented == known


def tables(page: Path, cls: str) -> dict[str, str]:
    """Names and defaults in the page's tables whose header is the class."""
    found = {}
    for body in re.findall(rf"^\| `{cls}` \| default \|.*\n\|[-|]+\n((?:\|.*\n)+)", page.read_text(), re.MULTILINE):
        for row in body.splitlines():
            names, default = (cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:3])
            found.update(dict.fromkeys(re.findall(r"`(\w+)`", names), default))
    return found


@pytest.mark.parametrize("home", TABLES, ids=lambda home: home.partition(":")[2])
def test_settings_tables(home: str) -> None:
    module, _, name = home.partition(":")
    cls = getattr(__import__(module, fromlist=[name]), name)
    own = {field.name: field for field in dataclasses.fields(cls) if field.name in cls.__annotations__}
    documented: dict[str, str] = {}
    for page in TABLES[home]:
        documented.update(tables(ROOT / "docs" / page, name))
    assert set(documented) == set(own)
    for field in own.values():
        written = documented[field.name]
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            assert written == "required", field.name
            continue
        default: Any = (
            field.default if field.default_factory is dataclasses.MISSING else field.default_factory()  # type: ignore[misc]
        )
        assert written.startswith("`"), f"{field.name}: write the default as code"
        assert read_yaml(written.strip("`"), "table") == default, f"{field.name}: the code's default is {default!r}"


def write_guesses(path: Path) -> None:
    rows = []
    for i in range(48):
        chat = [("user", "Guess a number from 1 to 4."), ("assistant", str(i % 4 + 1))]
        messages = [{"role": role, "content": text} for role, text in chat]
        rows.append({"messages": messages, "rewards": [float(i % 4 == 2)], "solved": i % 4 == 2})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def tiny_chat_model(folder: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = families.chat("chatml")
    tokenizer.add_special_tokens({"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>"})
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = AutoConfig.for_model("qwen2", vocab_size=len(tokenizer), num_key_value_heads=1, **sizes)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def guesses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``episodes.jsonl``, the checkpoint ``tiny``, and ``runs/mine``, made by the README's example."""
    folder = tmp_path_factory.mktemp("guesses")
    write_guesses(folder / "episodes.jsonl")
    tiny_chat_model(folder / "tiny")
    (block,) = python_blocks("README.md")
    assert HUB_ID in block
    assert sum(bool(line.strip()) for line in block.splitlines()) == 10
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(block.replace(HUB_ID, '"tiny"'), {})
    return folder


def test_readme_example(guesses: Path) -> None:
    assert json.loads((guesses / "runs/mine/run.json").read_text())["finished"]


def run_example(name: str, *arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    return capsys.readouterr().out


def test_examples(guesses: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(guesses)
    run_example("convert_chats.py", "episodes.jsonl", "--score", "solved", "--out", "converted.jsonl", capsys=capsys)
    last = [json.loads(line)["rewards"][-1] for line in Path("converted.jsonl").read_text().splitlines()]
    assert last == [float(i % 4 == 2) for i in range(48)]
    said = run_example(
        "train_on_your_data.py", "converted.jsonl", "--model", "tiny", "--out", "runs/example", capsys=capsys
    )
    assert said.count("policy:") == 3
    shown = run_example("inspect_q_values.py", "runs/example", "converted.jsonl", "--episode", "2", capsys=capsys)
    assert "agent: 3   reward 1, Q " in shown


def test_many_processes_page(guesses: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(guesses)
    prepare, stage2 = python_blocks("docs/training.md")
    exec(prepare, {})
    exec(stage2, {})
    assert (guesses / "stage2/likelihood/model.safetensors").exists()


def test_policy_page_and_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    collect = "collect wordle --policy mixture --episodes 64 --out wordle.jsonl --env-option observation=tiles"
    assert cli.main(collect.split()) == 0
    settings = ["model.n_embd=16", "model.n_inner=16", "likelihood.num_train_epochs=1"]
    settings += [
        f"{stage}.{steps}=1" for stage in ("behaviour", "likelihood") for steps in ("logging_steps", "save_steps")
    ]
    command = ["train", "qsft", "--config", str(ROOT / "examples/wordle.yaml"), "--data", "wordle.jsonl"]
    command += ["--out", "runs/wordle", *(part for setting in settings for part in ("--set", setting))]
    assert cli.main(command) == 0, capsys.readouterr().err

    namespace: dict[str, Any] = {}
    for block in python_blocks("docs/policy.md"):
        exec(block, namespace)

    documented = set(re.findall(r"`(\w+)`", (ROOT / "docs/training.md").read_text()))
    for log in ("log-behaviour.jsonl", "log-likelihood.jsonl"):
        lines = [json.loads(line) for line in (tmp_path / "runs/wordle" / log).read_text().splitlines()]
        assert len(lines) == 2
        assert set(lines[0]) <= documented
