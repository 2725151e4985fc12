"""The `qsft` command. Thin: every verb calls one function of the library."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qsft import __version__
from qsft.cli_convert import add_convert
from qsft.cli_episodes import add_values, add_video
from qsft.cli_players import decoding_options, natural, player, positive, prompting_options
from qsft.cli_reproduce import add_reproduce
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

    verb = verbs.add_parser("collect", help="play episodes and write them to a file")
    verb.add_argument("env", help="environment, for instance wordle")
    verb.add_argument(
        "--policy",
        metavar="RUN|SCRIPTED|react|few-shot",
        required=True,
        help="folder of a run, name of a scripted policy, or how a chat model is prompted",
    )
    verb.add_argument("--episodes", type=positive, required=True)
    verb.add_argument("--seed", type=natural, default=0)
    verb.add_argument("--out", required=True, help="a .jsonl or .parquet file")
    _env_options(verb)
    decoding_options(verb)
    prompting_options(verb)
    verb.set_defaults(run=_collect)

    verb = verbs.add_parser("validate", help="check a file of trajectories and print what it holds")
    verb.add_argument("file")
    verb.add_argument("--tokenizer", help="hub id or path, to count tokens")
    verb.add_argument("--json", metavar="FILE", help="also write the summary as JSON")
    verb.set_defaults(run=_validate)

    verb = verbs.add_parser("train", help="train a policy on a file of trajectories")
    verb.add_argument(
        "method",
        help="qsft, sft (or bc), filtered-bc, return-conditioned, monte-carlo, ilql, cql, q-transformer, awr or "
        "archer-offline",
    )
    verb.add_argument("--config", metavar="YAML", help="settings; the options below take precedence")
    verb.add_argument("--data", metavar="FILE")
    verb.add_argument("--model", help="hub id, local checkpoint, or JSON config of a model to initialise")
    verb.add_argument("--out", metavar="RUN", required=True, help="folder of the run")
    verb.add_argument("--resume", action="store_true", help="continue the run in --out exactly where it was")
    verb.add_argument("--seed", type=natural)
    verb.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="e.g. likelihood.learning_rate=1e-4",
    )
    verb.set_defaults(run=_train)

    verb = verbs.add_parser("evaluate", help="play held-out episodes with a run, a scripted policy or a chat model")
    verb.add_argument(
        "policy",
        metavar="RUN|SCRIPTED|react|few-shot",
        help="folder of a run, name of a scripted policy, or how a chat model is prompted",
    )
    verb.add_argument("--env", required=True)
    verb.add_argument("--episodes", type=positive, default=1000)
    verb.add_argument("--seed", type=natural, default=0)
    verb.add_argument("--batch-size", type=positive, default=256)
    verb.add_argument("--json", metavar="FILE")
    verb.add_argument(
        "--save-decoding", action="store_true", help="keep the decoding of this evaluation as the run's own"
    )
    _env_options(verb)
    decoding_options(verb)
    prompting_options(verb)
    verb.set_defaults(run=_evaluate)

    verb = verbs.add_parser("play", help="watch a run play, or play yourself")
    verb.add_argument("policy", metavar="RUN|SCRIPTED|react|few-shot|me")
    verb.add_argument("--env", required=True)
    verb.add_argument("--episodes", type=positive, default=1)
    verb.add_argument("--seed", type=natural, default=0)
    verb.add_argument("--values", action="store_true", help="show the Q-values of a run whose method has them")
    verb.add_argument(
        "--pin", action="append", default=[], metavar="NAME=VALUE", help="reset options, e.g. secret=crane"
    )
    _env_options(verb)
    decoding_options(verb)
    prompting_options(verb)
    verb.set_defaults(run=_play)

    add_reproduce(verbs)
    add_convert(verbs)
    add_values(verbs)
    add_video(verbs)

    verb = verbs.add_parser("demo", help="the main job: Wordle from data to report, in under 20 minutes on two cores")
    verb.add_argument("--out", default="demo", help="folder (default: demo)")
    verb.add_argument("--seed", type=natural, default=0)
    verb.set_defaults(run=_demo)
    return parser


def _env_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--env-option", action="append", default=[], metavar="NAME=VALUE", help="option of the environment (repeatable)"
    )


def _collect(arguments: argparse.Namespace) -> None:
    from qsft.envs import collect_to_file
    from qsft.envs.gather import gather
    from qsft.policies.prompting import PromptingPolicy

    options = _pairs(arguments.env_option, "--env-option")
    policy = player(arguments, options, keep_thoughts=True)
    plan = (arguments.env, policy, arguments.episodes, arguments.out, arguments.seed, options)
    if isinstance(policy, PromptingPolicy):
        prompt = hashlib.sha256(policy.system.encode()).hexdigest()[:12]
        temperature = arguments.temperature or 0.0
        count = gather(*plan, metadata={"model": arguments.model, "prompt": prompt, "temperature": temperature})
    else:
        count = collect_to_file(*plan)
    print(f"{count} episodes in {arguments.out}")


def _validate(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from qsft.data import render, summarise
    from qsft.data.text_files import check_place

    tokenizer = None
    if arguments.tokenizer:
        from qsft.models.scratch import load_processor

        tokenizer = load_processor(arguments.tokenizer)
    if arguments.json:
        if Path(arguments.json).resolve() == Path(arguments.file).resolve():
            raise ConfigError(f"--json {arguments.json}: is the file of episodes itself; choose another.")
        check_place(arguments.json)
    summary = summarise(arguments.file, tokenizer)
    Console().print(render(summary))
    if arguments.json:
        _write_json(arguments.json, summary.to_dict())


def _train(arguments: argparse.Namespace) -> None:
    from qsft.training import RunSettings, train
    from qsft.training.runs import unread_settings

    values, where = _read_config(arguments.config)
    for name in unread_settings(arguments.method, values):
        print(f"qsft: {where}: {name}: {arguments.method} does not read it", file=sys.stderr)
        del values[name]
    for name in ("data", "model", "seed"):
        if getattr(arguments, name) is not None:
            values[name] = getattr(arguments, name)
    for name, value in _pairs(arguments.settings, "--set").items():
        _assign(values, name, value)
    if values.setdefault("method", arguments.method) != arguments.method:
        raise ConfigError(f"{where}: method is {values['method']!r} and the command says {arguments.method!r}.")
    tokenizer = None
    if isinstance(values.get("tokenizer"), dict):
        from qsft.study import symbol_tokenizer

        tokenizer = symbol_tokenizer(values.pop("tokenizer"), where)
    train(RunSettings.from_dict(values, where), arguments.out, tokenizer=tokenizer, resume=arguments.resume)
    print(f"policy in {arguments.out}")


def _evaluate(arguments: argparse.Namespace) -> None:
    import time

    from qsft.data.text_files import check_place
    from qsft.data.trajectory import Trajectory
    from qsft.envs import make
    from qsft.evaluation import GAME_SCALES, evaluation_row, failed, print_table, result_row, rollout
    from qsft.evaluation.kinds import mean_counts

    options = _pairs(arguments.env_option, "--env-option")
    if arguments.save_decoding and not Path(arguments.policy).is_dir():
        raise ConfigError(f"--save-decoding: {arguments.policy!r} is not the folder of a run.")
    if arguments.json:
        check_place(arguments.json)
    policy = player(arguments, options)
    started = time.perf_counter()
    played: list[Trajectory] = []
    broken_off: BaseException | None = None
    try:
        for trajectory in rollout(
            policy, lambda: make(arguments.env, **options), arguments.episodes, arguments.seed, arguments.batch_size
        ):
            played.append(trajectory)
    except (QSFTError, KeyboardInterrupt) as error:  # what is finished is shown and kept
        if not played:
            raise
        broken_off = error
    row = evaluation_row(played, seconds=time.perf_counter() - started)
    counts = mean_counts(arguments.env, played)
    row |= {"env_options": options} if options else {}
    row |= {"counts": counts} if counts else {}
    if broken_off is not None:
        row["broken_off"] = str(broken_off) or "interrupted"
    shown = result_row(
        row,
        method=row["policy"],
        seed=row["seed"],
        config=row["policy"],
        command="qsft evaluate",
        seconds=row["seconds"],
    )
    print_table([shown], GAME_SCALES.get(arguments.env))
    for name, mean in counts.items():
        print(f"{name.replace('_', ' ')}: {mean:.2f} an episode")
    if broken := failed(played):
        reason = " ".join(str(broken[0].metadata["error"]).split())
        print(f"{len(broken)} of {len(played)} episodes failed and are not counted, the first with {reason}")
    if arguments.json:
        _write_json(arguments.json, row)
    if broken_off is not None:
        raise broken_off
    if arguments.save_decoding:
        from qsft.policies.decoding import write_decoding

        write_decoding(Path(arguments.policy), policy)


def _play(arguments: argparse.Namespace) -> None:
    from qsft.play import play

    options = _pairs(arguments.env_option, "--env-option")
    policy = None if arguments.policy == "me" else player(arguments, options, with_behaviour=arguments.values)
    pins = {name: _json_or_text(value) for name, value in _split(arguments.pin, "--pin")}
    play(policy, arguments.env, options, arguments.episodes, arguments.seed, pins, show_values=arguments.values)


def _demo(arguments: argparse.Namespace) -> None:
    from qsft.demo import demo

    demo(Path(arguments.out), arguments.seed)


def _pairs(items: Sequence[str], flag: str) -> dict[str, Any]:
    """``["a=1", "b=x"]`` to ``{"a": 1, "b": "x"}``; values are YAML."""
    from qsft.settings_file import read_yaml

    return {name: read_yaml(value, f"{flag} {name}") for name, value in _split(items, flag)}


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
    from qsft.settings_file import read_yaml_file

    if path is None:
        return {}, "command line"
    values = read_yaml_file(path)
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must hold settings as NAME: VALUE lines.")
    return values, path


def _write_json(path: str, content: dict[str, Any]) -> None:
    from qsft.data.text_files import write_text

    write_text(path, json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
