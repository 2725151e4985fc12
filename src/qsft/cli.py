"""The `qsft` command. Thin: every verb calls one function of the library."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qsft import __version__
from qsft.errors import ConfigError, QSFTError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; errors a user can mend are one line on stderr and status 2."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except QSFTError as error:
        print(f"qsft: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("qsft: interrupted; `train` and `collect` go on where they were when started again", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qsft", description="Offline RL for language models as supervised fine-tuning."
    )
    parser.add_argument("--version", action="version", version=f"qsft {__version__}")
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")

    verb = verbs.add_parser("collect", help="play episodes with a scripted policy and write them to a file")
    verb.add_argument("env", help="environment, for instance wordle")
    verb.add_argument("--policy", required=True, help="one of the environment's scripted policies")
    verb.add_argument("--episodes", type=_positive, required=True)
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--out", required=True, help="a .jsonl or .parquet file")
    _env_options(verb)
    verb.set_defaults(run=_collect)

    verb = verbs.add_parser("validate", help="check a file of trajectories and print what it holds")
    verb.add_argument("file")
    verb.add_argument("--tokenizer", help="hub id or path, to count tokens")
    verb.add_argument("--json", metavar="FILE", help="also write the summary as JSON")
    verb.set_defaults(run=_validate)

    verb = verbs.add_parser("train", help="train a policy on a file of trajectories")
    verb.add_argument("method", help="qsft, sft or filtered-bc")
    verb.add_argument("--config", metavar="YAML", help="settings; the options below take precedence")
    verb.add_argument("--data", metavar="FILE")
    verb.add_argument("--model", help="hub id, local checkpoint, or JSON config of a model to initialise")
    verb.add_argument("--out", metavar="RUN", required=True, help="folder of the run")
    verb.add_argument("--resume", action="store_true", help="continue the run in --out exactly where it was")
    verb.add_argument("--seed", type=int)
    verb.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="e.g. likelihood.learning_rate=1e-4",
    )
    verb.set_defaults(run=_train)

    verb = verbs.add_parser("evaluate", help="play held-out episodes with a run or a scripted policy")
    verb.add_argument("policy", metavar="RUN|SCRIPTED", help="folder of a run, or the name of a scripted policy")
    verb.add_argument("--env", required=True)
    verb.add_argument("--episodes", type=_positive, default=1000)
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--batch-size", type=_positive, default=256)
    verb.add_argument("--json", metavar="FILE")
    _env_options(verb)
    _decoding(verb)
    verb.set_defaults(run=_evaluate)

    verb = verbs.add_parser("play", help="watch a run play, or play yourself")
    verb.add_argument("policy", metavar="RUN|SCRIPTED|me")
    verb.add_argument("--env", required=True)
    verb.add_argument("--episodes", type=_positive, default=1)
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--values", action="store_true", help="show the Q-values that a Q-SFT run acts on")
    verb.add_argument(
        "--pin", action="append", default=[], metavar="NAME=VALUE", help="reset options, e.g. secret=crane"
    )
    _env_options(verb)
    _decoding(verb)
    verb.set_defaults(run=_play)

    verb = verbs.add_parser("reproduce", help="do the runs of a study that have no row in its results yet")
    verb.add_argument("study", help="a YAML file, for instance experiments/wordle/ablation.yaml")
    verb.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    verb.add_argument("--only", nargs="+", default=[], metavar="NAME", help="names of the runs to do")
    verb.add_argument("--results", metavar="FILE", help="default: results.json beside the study")
    verb.add_argument("--work", metavar="DIR", default="runs", help="folder for data and models (default: runs)")
    verb.set_defaults(run=_reproduce)

    verb = verbs.add_parser("demo", help="the main job: Wordle from data to report, in under 20 minutes on two cores")
    verb.add_argument("--out", default="demo", help="folder (default: demo)")
    verb.add_argument("--seed", type=int, default=0)
    verb.set_defaults(run=_demo)
    return parser


def _env_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--env-option", action="append", default=[], metavar="NAME=VALUE", help="option of the environment (repeatable)"
    )


def _decoding(verb: argparse.ArgumentParser) -> None:
    group = verb.add_argument_group("decoding (default: what the run was saved with)")
    group.add_argument("--extraction", choices=("product", "value", "likelihood"))
    group.add_argument("--beta", type=float)
    group.add_argument("--eta", type=float)
    group.add_argument("--support", type=float)
    group.add_argument("--temperature", type=float, help="0 plays greedily")
    group.add_argument("--beams", type=_positive, default=1, help="beam search; needs --temperature 0")


def _collect(arguments: argparse.Namespace) -> None:
    from qsft.envs import collect_to_file

    options = _pairs(arguments.env_option, "--env-option")
    collect_to_file(arguments.env, arguments.policy, arguments.episodes, arguments.out, arguments.seed, options)
    print(f"{arguments.episodes} episodes in {arguments.out}")


def _validate(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from qsft.data import render, summarise

    tokenizer = None
    if arguments.tokenizer:
        from qsft.models.scratch import load_tokenizer

        tokenizer = load_tokenizer(arguments.tokenizer)
    summary = summarise(arguments.file, tokenizer)
    Console().print(render(summary))
    if arguments.json:
        _write_json(arguments.json, summary.to_dict())


def _train(arguments: argparse.Namespace) -> None:
    from qsft.training import RunSettings, train

    values, where = _read_config(arguments.config)
    for name in ("data", "model", "seed"):
        if getattr(arguments, name) is not None:
            values[name] = getattr(arguments, name)
    for name, value in _pairs(arguments.settings, "--set").items():
        _assign(values, name, value)
    if values.setdefault("method", arguments.method) != arguments.method:
        raise ConfigError(f"{where}: method is {values['method']!r} and the command says {arguments.method!r}.")
    tokenizer = None
    if isinstance(values.get("tokenizer"), dict):
        tokenizer = symbol_tokenizer(values.pop("tokenizer"), where)
    train(RunSettings.from_dict(values, where), arguments.out, tokenizer=tokenizer, resume=arguments.resume)
    print(f"policy in {arguments.out}")


def symbol_tokenizer(settings: dict[str, Any], where: str) -> Any:
    """A word-level tokenizer of the symbols of an environment's texts, ``{environment: wordle, ...}``."""
    from qsft.envs import symbols
    from qsft.models.scratch import word_level_tokenizer

    values = dict(settings)
    name = values.pop("environment", None)
    if name is None:
        raise ConfigError(f"{where}: tokenizer: give a path or hub id, or {{environment: NAME, ...}}.")
    return word_level_tokenizer(symbols(name, **values))


def _evaluate(arguments: argparse.Namespace) -> None:
    import time

    from rich.console import Console

    from qsft.envs import make
    from qsft.evaluation import LMRL_GYM_SCALES, evaluation_row, result_row, rich_table, rollout

    options = _pairs(arguments.env_option, "--env-option")
    policy = _policy(arguments, options)
    started = time.perf_counter()
    played = list(
        rollout(
            policy, lambda: make(arguments.env, **options), arguments.episodes, arguments.seed, arguments.batch_size
        )
    )
    row = evaluation_row(played, seconds=time.perf_counter() - started)
    shown = result_row(
        row,
        method=row["policy"],
        seed=row["seed"],
        config=row["policy"],
        command="qsft evaluate",
        seconds=row["seconds"],
    )
    Console().print(rich_table([shown], LMRL_GYM_SCALES.get(arguments.env)))
    if arguments.json:
        _write_json(arguments.json, row)


def _policy(arguments: argparse.Namespace, options: dict[str, Any], with_behaviour: bool = False) -> Any:
    """A run's policy where the argument is a folder, else a scripted policy of the environment."""
    from qsft.envs import make_policy, scripted_policies

    if Path(arguments.policy).is_dir():
        from qsft.policies import load_policy

        return load_policy(
            arguments.policy,
            extraction=_extraction(arguments),
            temperature=arguments.temperature,
            beams=arguments.beams,
            with_behaviour=with_behaviour,
            seed=arguments.seed,
        )
    if arguments.policy not in scripted_policies(arguments.env):
        raise ConfigError(
            f"{arguments.policy!r} is neither the folder of a run nor a scripted policy of {arguments.env} "
            f"({', '.join(scripted_policies(arguments.env))})."
        )
    return make_policy(arguments.env, arguments.policy, env_options=options, seed=arguments.seed)


def _extraction(arguments: argparse.Namespace) -> Any:
    """The extraction that the decoding options ask for; ``None`` when none is given."""
    given = {
        name: getattr(arguments, name) for name in ("beta", "eta", "support") if getattr(arguments, name) is not None
    }
    if arguments.extraction is None:
        if given:
            raise ConfigError(f"--{next(iter(given))}: needs --extraction, which says what it applies to.")
        return None
    from qsft.models import Extraction

    return Extraction(arguments.extraction, **given)


def _play(arguments: argparse.Namespace) -> None:
    from qsft.play import play

    options = _pairs(arguments.env_option, "--env-option")
    policy = None if arguments.policy == "me" else _policy(arguments, options, with_behaviour=arguments.values)
    pins = {name: _json_or_text(value) for name, value in _split(arguments.pin, "--pin")}
    play(policy, arguments.env, options, arguments.episodes, arguments.seed, pins, show_values=arguments.values)


def _reproduce(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from qsft.evaluation import LMRL_GYM_SCALES, ResultsFile, rich_table
    from qsft.study import Study, run_study

    path = Path(arguments.study)
    study = Study.load(path)
    results = Path(arguments.results) if arguments.results else path.parent / "results.json"
    command = f"qsft reproduce {path}"
    run_study(study, Path(arguments.work) / path.stem, results, arguments.seeds, command, arguments.only)
    names = {run.name for run in study.runs}
    rows = [row for row in ResultsFile(results).rows() if row.config in names and row.env == study.env]
    if rows:
        Console().print(rich_table(rows, LMRL_GYM_SCALES.get(study.env), title=f"{path.stem} ({results})"))


def _demo(arguments: argparse.Namespace) -> None:
    from qsft.demo import demo

    demo(Path(arguments.out), arguments.seed)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def _pairs(items: Sequence[str], flag: str) -> dict[str, Any]:
    """``["a=1", "b=x"]`` to ``{"a": 1, "b": "x"}``; values are YAML."""
    from qsft.study import read_yaml

    return {name: read_yaml(value) for name, value in _split(items, flag)}


def _split(items: Sequence[str], flag: str) -> list[tuple[str, str]]:
    pairs = [item.partition("=") for item in items]
    for item, (name, equals, _) in zip(items, pairs, strict=True):
        if not equals or not name:
            raise ConfigError(f"{flag} {item!r}: write it as NAME=VALUE.")
    return [(name, value) for name, _, value in pairs]


def _json_or_text(value: str) -> Any:
    """Numbers, lists and objects as JSON; everything else (``false`` is a word of Wordle) as text."""
    try:
        parsed = json.loads(value)
    except json.JSONDecodeError:
        return value
    return value if isinstance(parsed, bool) or parsed is None else parsed


def _assign(values: dict[str, Any], name: str, value: Any) -> None:
    *path, last = name.split(".")
    for part in path:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {name}: {part!r} is not a group of settings.")
    values[last] = value


def _read_config(path: str | None) -> tuple[dict[str, Any], str]:
    import yaml

    from qsft.study import read_yaml

    if path is None:
        return {}, "command line"
    try:
        values = read_yaml(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must hold settings as NAME: VALUE lines.")
    return values, path


def _write_json(path: str, content: dict[str, Any]) -> None:
    from qsft.data.text_files import write_text

    write_text(path, json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
