"""A study: methods trained on the same data, each judged at its own best decoding, one row a finished run.

A study is a YAML file (see ``experiments/wordle`` and docs/commands/reproduce.md). Rows that the results file holds are
skipped, so a table fills up over many sittings.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from qsft.data.text_files import check_place, make_folder, write_text
from qsft.data.trajectory import Trajectory
from qsft.envs import make, make_policy, symbols
from qsft.envs.collect import collect_to_file, source_of
from qsft.envs.registry import environment_class, legal_actions
from qsft.errors import CheckpointError, ConfigError
from qsft.evaluation import (
    GridResult,
    ResultRow,
    ResultsFile,
    evaluation_row,
    result_row,
    rollout,
    row_key,
    select_and_evaluate,
)
from qsft.evaluation.kinds import mean_counts, rows_by_kind
from qsft.evaluation.results import RowKey
from qsft.models.robot_processor import robot_processor
from qsft.models.scratch import llava_processor, word_level_tokenizer
from qsft.policies.base import Policy
from qsft.policies.chats import Chat
from qsft.policies.decoding import extraction, with_setting
from qsft.policies.load import load_policy, read_run
from qsft.policies.model import ModelPolicy
from qsft.policies.prompting import KINDS as PROMPTED
from qsft.policies.prompting import PromptingPolicy, best_examples
from qsft.pretrain import pretrain
from qsft.study_file import UNTRAINED, Study, StudyRun, episode_options, is_only_legal, row_method, run_settings, slug
from qsft.study_start import hash_of, note_start, stage_one
from qsft.training import train
from qsft.training.runs import RUN_FILE, STAGES_OF

#: seconds that the training of a run has taken so far
CLOCK_FILE = "seconds.json"
logger = logging.getLogger("qsft")


@dataclass
class Finished:
    """What a run of a study leaves in memory for a report."""

    row: ResultRow
    grid: GridResult | None
    folder: Path | None


def run_study(
    study: Study,
    work: Path,
    results: Path,
    seeds: Iterable[int],
    command: str,
    only: Iterable[str] = (),
    progress: bool = True,
    chat: Chat | None = None,
) -> list[Finished]:
    """Do every run of every seed that has no row yet.

    Args:
        study: what to do.
        work: folder for data, tokenised data and runs; a killed study goes on from there.
        results: the results file.
        seeds: of data, weights, data order.
        command: what makes the rows of these seeds again.
        only: names of the runs to do; all of them when empty.
        progress: show bars.
        chat: the model of the runs that prompt one; ``None`` leaves these out.

    Raises:
        ConfigError: as :func:`wanted_runs` and :func:`check_rows`, before anything is done.
    """
    finished = []
    file = ResultsFile(results)
    wanted = wanted_runs(study, seeds, only)
    check_rows(study, file, wanted, chat)
    for seed, run in wanted:
        if file.has(key_of(study, run, seed)):
            continue
        if run.method in PROMPTED and chat is None:
            logger.warning("%s: %s is left out: it needs --model (and --endpoint)", study.env, run.name)
            continue
        check_place(results)
        if run.method in UNTRAINED:
            done = _untrained(study, run, work, seed, command, progress, chat)
        else:
            done = _trained(study, run, work, seed, command, progress)
        extra = {**done.row.extra, "study": made_by(study, run, chat)}
        done.row = dataclasses.replace(done.row, env=study.row_env, extra=extra)
        if file.has(done.row.key):
            logger.warning(
                "%s: another command made the row of %s, seed %d, meanwhile; it stays", results, run.name, seed
            )
            continue
        file.add(done.row)
        finished.append(done)
    return finished


def wanted_runs(study: Study, seeds: Iterable[int], only: Iterable[str] = ()) -> list[tuple[int, StudyRun]]:
    """The runs with their seeds, in the order in which they are done.

    Raises:
        ConfigError: no run has a name of ``only``.
    """
    wanted = set(only)
    unknown = wanted - {run.name for run in study.runs}
    if unknown:
        raise ConfigError(
            f"no run is called {sorted(unknown)[0]!r}; there are {', '.join(r.name for r in study.runs)}."
        )
    return [(seed, run) for seed in seeds for run in study.runs if not wanted or run.name in wanted]


def key_of(study: Study, run: StudyRun, seed: int) -> RowKey:
    """What the run's row is found by."""
    return row_key(study.row_env, row_method(run), run.name, seed)


def made_by(study: Study, run: StudyRun, chat: Chat | None = None) -> str:
    """A hash of all settings that decide what a run's row says, so that another study's row is not taken for it."""
    runs = [run]
    while (origin := runs[-1].behaviour_of or runs[-1].policy_of) is not None:
        runs.append(study.run_named(origin, "run"))
    shared = {
        f.name: getattr(study, f.name)
        for f in dataclasses.fields(study)
        if f.name not in ("runs", "collect", "decoding", "table")
    }
    settings = {
        **shared,
        "runs": [dataclasses.asdict(each) for each in runs],
        "collect": [study.collect.get(each.data) for each in runs],
        "decoding": study.decoding.get(run.decoding),
        "chat": chat.name if chat and run.method in PROMPTED else None,
    }
    return hash_of(json.dumps(settings, sort_keys=True, default=str))


def check_rows(study: Study, file: ResultsFile, wanted: Iterable[tuple[int, StudyRun]], chat: Chat | None) -> None:
    """See that the rows which runs would be skipped for were made with the study's settings.

    Raises:
        ConfigError: one was made with others.
    """
    noted = {row.key: row.extra["study"] for row in file.rows() if "study" in row.extra}
    for seed, run in wanted:
        found = noted.get(key_of(study, run, seed))
        if run.method in PROMPTED and chat is None:
            continue
        if found not in (None, made_by(study, run, chat)):
            raise ConfigError(
                f"{file.path}: the row of {run.name!r}, seed {seed}, was made with other settings, or by another study; "
                "give another --results and --work, or take its line out to make it again."
            )


def _untrained_policy(study: Study, run: StudyRun, work: Path, seed: int, chat: Chat | None) -> Policy:
    options = episode_options(study, study.test, run)
    if run.method == "scripted":
        return make_policy(study.env, run.name, env_options=options, seed=seed)
    assert chat is not None
    shots = int(run.settings.get("shots", 0))
    return PromptingPolicy(
        run.method,
        chat,
        run.settings.get("instructions", ""),
        best_examples(collect_data(study, run.data, work, seed), shots) if shots else (),
        make(study.env, **options).typed_action,
    )


def _untrained(
    study: Study, run: StudyRun, work: Path, seed: int, command: str, progress: bool, chat: Chat | None
) -> Finished:
    started = time.perf_counter()
    options = episode_options(study, study.test, run)
    policy = _untrained_policy(study, run, work, seed, chat)
    played = list(rollout(policy, lambda: make(study.env, **options), **_test(study, seed), progress=progress))
    seconds = time.perf_counter() - started
    evaluation = evaluation_row(played, seconds=seconds)
    row = result_row(
        evaluation,
        method=row_method(run),
        seed=seed,
        config=run.name,
        command=command,
        seconds=seconds,
        extra={**_of_environment(study, played), **({"model": chat.name} if chat and run.method in PROMPTED else {})},
    )
    return Finished(row, None, None)


def _of_environment(study: Study, played: Sequence[Trajectory]) -> dict[str, Any]:
    """What the environment tells of the test episodes, for a row's ``extra``."""
    found = {"kinds": rows_by_kind(study.env, played), "counts": mean_counts(study.env, played)}
    return {name: value for name, value in found.items() if value}


def _test(study: Study, seed: int) -> dict[str, int]:
    return {"episodes": study.test["episodes"], "seed": study.test["seed"] + seed}


def _trained(study: Study, run: StudyRun, work: Path, seed: int, command: str, progress: bool) -> Finished:
    folder, seconds = train_run(study, run, work, seed, quiet=not progress)
    started = time.perf_counter()
    grid = evaluate_run(study, run, folder, seed, progress)
    second = [name for name, methods in STAGES_OF.items() if run.method in methods]
    log = folder / f"log-{second[0] if second else 'behaviour'}.jsonl"
    extra = {
        "decoding": grid.setting,
        "grid": [grid_row.to_json() for grid_row in grid.rows],
        "training_seconds": round(seconds, 1),
        "stage_one": stage_one(study, run, folder.parent),
        **({"env_options": run.env_options} if run.env_options else {}),
        **({"only_legal": True} if is_only_legal(study, run) else {}),
        "last_log": _last_log(log),
        **_of_environment(study, grid.trajectories),
    }
    total = seconds + time.perf_counter() - started
    row = result_row(
        grid.test, method=run.method, seed=seed, config=run.name, command=command, seconds=total, extra=extra
    )
    return Finished(row, grid, folder)


def train_run(study: Study, run: StudyRun, work: Path, seed: int, quiet: bool = False) -> tuple[Path, float]:
    """Train one run (and the one whose model it starts from) unless done; its folder and its seconds of training.

    Of a run that plays another's policy it is that one's folder, and no seconds.
    """
    if run.policy_of is not None:
        origin = study.run_named(run.policy_of, f"run {run.name!r}: policy_of")
        return train_run(study, origin, work, seed, quiet)[0], 0.0
    folder = work / f"seed-{seed}" / slug(run.name)
    behaviour_model = None
    if run.behaviour_of is not None:
        origin = study.run_named(run.behaviour_of, f"run {run.name!r}: behaviour_of")
        behaviour_model = str(train_run(study, origin, work, seed, quiet)[0])
        note_start(run, folder.parent)
    symbol_source = run.settings.get("tokenizer", study.tokenizer)
    tokenizer = symbol_tokenizer(symbol_source, study.env) if isinstance(symbol_source, dict) else None
    pretrained = None
    if study.pretrain is not None:
        # the same for every seed, as a downloaded model would be; its tokenizer is beside it
        pretrained = pretrain(study.pretrain, study.env, study.env_options, study.model, work, quiet, tokenizer)
        tokenizer = None
    data = collect_data(study, run.data, work, seed)
    plan = run_settings(study, run, str(data), seed, behaviour_model, None if pretrained is None else str(pretrained))
    with _timed(folder):
        train(plan, folder, tokenizer=tokenizer, resume=folder.exists(), cache_dir=work / "cache", quiet=quiet)
    return folder, _seconds(folder)


@contextmanager
def _timed(folder: Path) -> Iterator[None]:
    """Adds the time of the block to that of the run's earlier sittings, also where the block is broken off."""
    finished, before, started = _is_finished(folder), _seconds(folder), time.perf_counter()
    try:
        yield
    finally:
        if (folder / RUN_FILE).exists() and not finished:  # a run that was refused leaves nothing
            write_text(folder / CLOCK_FILE, json.dumps(before + time.perf_counter() - started))


def _seconds(folder: Path) -> float:
    path = folder / CLOCK_FILE
    return float(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else 0.0


def _is_finished(folder: Path) -> bool:
    try:
        read_run(folder)
    except CheckpointError:
        return False
    return True


def symbol_tokenizer(settings: Mapping[str, Any], where: str) -> Any:
    """A word-level tokenizer of the symbols of an environment's texts, ``{environment: wordle, ...}``.

    With ``image_tokens`` it is the processor of a robot transformer, with that many tokens an image (and ``backbone``
    where its ``vision`` is pretrained); with ``patch_size`` that of a LLaVA model. Both read pictures of ``image_size``
    pixels a side (64 by default).

    Raises:
        ConfigError: without ``environment``, or with both kinds of images; the message begins with ``where``.
    """
    values = dict(settings)
    name, image_tokens = values.pop("environment", None), values.pop("image_tokens", None)
    patch_size, backbone = values.pop("patch_size", None), values.pop("backbone", None)
    if name is None:
        raise ConfigError(f"{where}: tokenizer: give a path or hub id, or {{environment: NAME, ...}}.")
    if image_tokens is not None and patch_size is not None:
        raise ConfigError(
            f"{where}: tokenizer: image_tokens (a robot transformer) and patch_size (LLaVA) are of two models; give one."
        )
    tokenizer = word_level_tokenizer(symbols(name, **values))
    image_size = int(values.get("image_size", 64))
    if patch_size is not None:
        return llava_processor(tokenizer, image_size, int(patch_size))
    return tokenizer if image_tokens is None else robot_processor(tokenizer, image_size, int(image_tokens), backbone)


def collect_data(study: Study, name: str, work: Path, seed: int) -> Path:
    """The study's collection of that name for a seed, played now unless it exists."""
    if name not in study.collect:
        raise ConfigError(f"collect: there is no {name!r}; there are {', '.join(study.collect)}.")
    plan = study.collect[name]
    path = work / f"{name}-{seed}.jsonl"
    first, options = int(plan.get("seed", 0)) + seed, episode_options(study, plan)
    if path.exists():
        _check_collection(path, source_of(environment_class(study.env).name, plan["policy"], first, options), plan)
    else:
        make_folder(path)
        collect_to_file(study.env, plan["policy"], int(plan["episodes"]), path, first, options)
    return path


def _check_collection(path: Path, source: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
    """That a file is what the study would collect: another study of the same name may have made it, or an earlier form."""
    first, rows = _first_and_number(path, path.stat().st_mtime_ns)
    noted = json.loads(first)["metadata"]
    differing = [name for name, value in source.items() if noted.get(name, value) != value]
    if rows != plan["episodes"]:
        differing.append("episodes")
    if differing:
        raise ConfigError(
            f"{path}: holds {rows} episodes of another collection ({', '.join(differing)} differ from the study's); choose "
            "another --work, or delete the folder"
        )


@lru_cache
def _first_and_number(path: Path, changed: int) -> tuple[bytes, int]:
    """The first line of a file that changed then, and how many it has: many runs ask, and it may be large."""
    with path.open("rb") as file:
        return file.readline(), 1 + sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))


def evaluate_run(study: Study, run: StudyRun, folder: Path, seed: int, progress: bool = True) -> GridResult:
    """Choose the run's decoding on the selection episodes and judge it on the test episodes."""
    settings = study.decoding[run.decoding]
    needs_behaviour = any(extraction(setting).needs_behaviour for setting in settings)
    on_gpu = torch.cuda.is_available() and not study.behaviour.get("use_cpu")
    place: dict[str, Any] = {"device_map": "cuda"} if on_gpu else {}
    options = episode_options(study, study.test, run)
    rules = legal_actions(study.env, **options) if is_only_legal(study, run) else None
    policy = load_policy(folder, with_behaviour=needs_behaviour, legal_actions=rules, **place)

    def decoded(setting: Mapping[str, Any]) -> ModelPolicy:
        return with_setting(policy, setting, run.name)

    return select_and_evaluate(
        decoded,
        settings,
        lambda: make(study.env, **episode_options(study, study.select, run)),
        select_episodes=study.select["episodes"],
        select_seed=study.select["seed"] + seed,
        test_env_factory=lambda: make(study.env, **options),
        **_test(study, seed),
        progress=progress,
    )


def _last_log(path: Path) -> dict[str, Any]:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    entries = [line for line in lines if "loss" in line]
    names = ("step", "loss", "first_value", "first_return", "target_mean", "target_std", "clipped_share")
    return {name: round(entries[-1][name], 5) for name in names if name in entries[-1]} if entries else {}
