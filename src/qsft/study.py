"""A study: methods trained on the same data, each judged at its own best decoding, one row a finished run.

A study is a YAML file (see ``experiments/wordle`` and docs/commands/reproduce.md). Rows that the results file holds are
skipped, so a table fills up over many sittings.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import math
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from qsft.data.files import load_trajectories, write_trajectories
from qsft.data.trajectory import Trajectory
from qsft.data.windows import settled_windows
from qsft.envs import make, make_policy, symbols
from qsft.envs.collect import collect_to_file
from qsft.errors import ConfigError
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
from qsft.evaluation.kinds import rows_by_kind
from qsft.models.robot_processor import robot_processor
from qsft.models.scratch import word_level_tokenizer
from qsft.policies.base import Policy
from qsft.policies.chats import Chat
from qsft.policies.decoding import extraction
from qsft.policies.load import load_policy
from qsft.policies.model import ModelPolicy
from qsft.policies.prompting import KINDS as PROMPTED
from qsft.policies.prompting import PromptingPolicy, best_examples
from qsft.pretrain import pretrain
from qsft.training import RunSettings, train
from qsft.training.runs import STAGES_OF

logger = logging.getLogger("qsft")
#: methods of runs that train nothing
UNTRAINED = ("scripted", *PROMPTED)


@dataclass(frozen=True)
class StudyRun:
    """One row of the table, for every seed.

    Args:
        name: the row's ``config``.
        method: a method of ``qsft train``; ``"scripted"`` for a scripted policy of that name; ``"react"`` or
            ``"few-shot"`` for a chat model that is prompted, whose settings are ``instructions`` (a text) and ``shots``.
        decoding: which of the study's grids it decodes with.
        data: which of the study's collections it is trained on.
        behaviour_of: name of the run whose model it starts from.
        settings: overrides of the study's ``model``, ``tokenizer``, ``behaviour``, ``likelihood`` and ``critic``, any
            other field of :class:`qsft.training.RunSettings`.
    """

    name: str
    method: str
    decoding: str = ""
    data: str = "train"
    behaviour_of: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """See the module's docstring; fields are those of the YAML file."""

    env: str
    runs: list[StudyRun]
    collect: dict[str, dict[str, Any]]
    decoding: dict[str, list[dict[str, Any]]]
    select: dict[str, Any]
    test: dict[str, Any]
    env_options: dict[str, Any] = field(default_factory=dict)
    tokenizer: dict[str, Any] | str | None = None
    model: dict[str, Any] | str = field(default_factory=dict)
    behaviour: dict[str, Any] = field(default_factory=dict)
    likelihood: dict[str, Any] = field(default_factory=dict)
    critic: dict[str, Any] = field(default_factory=dict)
    pretrain: dict[str, Any] | None = None

    @classmethod
    def load(cls, path: str | os.PathLike[str], quick: bool = False) -> Study:
        """Read a study.

        Args:
            path: the YAML file.
            quick: lay what the file has under ``quick`` over the rest: fewer episodes, smaller collections.

        Raises:
            ConfigError: not a study, with the field that is wrong.
        """
        try:
            values = read_yaml(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"{path}: cannot be read as YAML: {error}") from error
        known = {f.name for f in dataclasses.fields(cls)}
        reduced = values.pop("quick", None) if isinstance(values, dict) else None
        if quick:
            if not isinstance(reduced, dict):
                raise ConfigError(f"{path}: quick: the study has no reduced form; run it without --quick.")
            values = _laid_over(values, reduced)
        if not isinstance(values, dict) or set(values) - known:
            wrong = sorted(set(values) - known) if isinstance(values, dict) else type(values).__name__
            raise ConfigError(f"{path}: {wrong} is no field of a study; there are {', '.join(sorted(known))}.")
        try:
            runs = [StudyRun(**run) for run in values.pop("runs")]
            study = cls(runs=runs, **values)
        except (TypeError, KeyError) as error:
            raise ConfigError(
                f"{path}: {error}; a study needs env, runs, collect, decoding, select and test."
            ) from error
        for run in runs:
            if run.method not in UNTRAINED and run.decoding not in study.decoding:
                raise ConfigError(f"{path}: run {run.name!r}: decoding grid {run.decoding!r} is not in the study.")
        return study


def study_files(name: str | os.PathLike[str]) -> list[Path]:
    """The studies that a name stands for: a YAML file, a folder of them, or a folder's name in ``experiments``.

    Raises:
        ConfigError: a folder without studies.
    """
    path = Path(name)
    for folder in (path, Path("experiments") / path):
        if folder.is_dir():
            if not (found := sorted(folder.glob("*.yaml"))):
                raise ConfigError(f"{folder}: holds no study; give a YAML file or a folder of them.")
            return found
    return [path]


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
        command: what makes the rows again.
        only: names of the runs to do; all of them when empty.
        progress: show bars.
        chat: the model of the runs that prompt one; ``None`` leaves these out.
    """
    finished = []
    file = ResultsFile(results)
    wanted = set(only)
    unknown = wanted - {run.name for run in study.runs}
    if unknown:
        raise ConfigError(
            f"no run is called {sorted(unknown)[0]!r}; there are {', '.join(r.name for r in study.runs)}."
        )
    for seed in seeds:
        for run in study.runs:
            if wanted and run.name not in wanted:
                continue
            if file.has(row_key(study.env, row_method(run), run.name, seed)):
                continue
            if run.method in PROMPTED and chat is None:
                logger.warning("%s: %s is left out: it needs --model (and --endpoint)", study.env, run.name)
                continue
            if run.method in UNTRAINED:
                done = _untrained(study, run, work, seed, command, progress, chat)
            else:
                done = _trained(study, run, work, seed, command, progress)
            file.add(done.row)
            finished.append(done)
    return finished


def row_method(run: StudyRun) -> str:
    """Method name of a run's row; a scripted policy's is its own name."""
    return run.name if run.method == "scripted" else run.method


def _untrained_policy(study: Study, run: StudyRun, work: Path, seed: int, chat: Chat | None) -> Policy:
    options = held_out(study, study.test)
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
    options = held_out(study, study.test)
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
        extra={**_kinds(study, played), **({"model": chat.name} if chat and run.method in PROMPTED else {})},
    )
    return Finished(row, None, None)


def _kinds(study: Study, played: Iterable[Trajectory]) -> dict[str, Any]:
    rows = rows_by_kind(study.env, played)
    return {"kinds": rows} if rows else {}


def held_out(study: Study, episodes: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the environment on the study's ``select`` or ``test`` episodes."""
    return {**study.env_options, **episodes.get("env_options", {})}


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
        "last_log": _last_log(log),
        **_kinds(study, grid.trajectories),
    }
    total = seconds + time.perf_counter() - started
    row = result_row(
        grid.test, method=run.method, seed=seed, config=run.name, command=command, seconds=total, extra=extra
    )
    return Finished(row, grid, folder)


def train_run(study: Study, run: StudyRun, work: Path, seed: int, quiet: bool = False) -> tuple[Path, float]:
    """Train one run (and the one whose model it starts from) unless done; its folder and its seconds of training."""
    folder = work / f"seed-{seed}" / slug(run.name)
    settings = copy.deepcopy(run.settings)
    behaviour_model = None
    if run.behaviour_of is not None:
        origin = next((other for other in study.runs if other.name == run.behaviour_of), None)
        if origin is None:
            raise ConfigError(f"run {run.name!r}: behaviour_of {run.behaviour_of!r} is not a run of the study.")
        behaviour_model = str(train_run(study, origin, work, seed, quiet)[0])
    model = settings.pop("model", study.model)
    symbol_source = settings.pop("tokenizer", study.tokenizer)
    if study.pretrain is not None:
        # the same for every seed, as a downloaded model would be
        model = str(pretrain(study.pretrain, study.env, study.env_options, study.model, work, quiet))
        symbol_source = None
    stages: dict[str, Any] = {"behaviour": {**study.behaviour, **settings.pop("behaviour", {})}}
    for name, methods in STAGES_OF.items():
        given = settings.pop(name, {})
        if run.method in methods:
            stages[name] = {**getattr(study, name), **given}
    plan = RunSettings(
        method=run.method,
        data=str(collect_data(study, run.data, work, seed)),
        model=model,
        tokenizer=symbol_source if isinstance(symbol_source, str) else None,
        format="text" if isinstance(symbol_source, dict) else "auto",
        behaviour_model=behaviour_model,
        seed=seed,
        **stages,
        **settings,
    )
    tokenizer = symbol_tokenizer(symbol_source, study.env) if isinstance(symbol_source, dict) else None
    started = time.perf_counter()
    train(plan, folder, tokenizer=tokenizer, resume=folder.exists(), cache_dir=work / "cache", quiet=quiet)
    # a run trained in an earlier sitting keeps the time it took then
    clock = folder / "seconds.json"
    if not clock.exists():
        clock.write_text(json.dumps(time.perf_counter() - started), encoding="utf-8")
    return folder, float(json.loads(clock.read_text(encoding="utf-8")))


def symbol_tokenizer(settings: Mapping[str, Any], where: str) -> Any:
    """A word-level tokenizer of the symbols of an environment's texts, ``{environment: wordle, ...}``.

    With ``image_tokens`` it is the processor of a robot transformer, with that many tokens an image.

    Raises:
        ConfigError: without ``environment``; the message begins with ``where``.
    """
    values = dict(settings)
    name, image_tokens = values.pop("environment", None), values.pop("image_tokens", None)
    if name is None:
        raise ConfigError(f"{where}: tokenizer: give a path or hub id, or {{environment: NAME, ...}}.")
    tokenizer = word_level_tokenizer(symbols(name, **values))
    if image_tokens is None:
        return tokenizer
    return robot_processor(tokenizer, int(values.get("image_size", 64)), int(image_tokens))


def collect_data(study: Study, name: str, work: Path, seed: int) -> Path:
    """The study's collection of that name for a seed, played now unless it exists."""
    if name not in study.collect:
        raise ConfigError(f"collect: there is no {name!r}; there are {', '.join(study.collect)}.")
    plan = study.collect[name]
    path = work / f"{name}-{seed}.jsonl"
    if not path.exists():
        work.mkdir(parents=True, exist_ok=True)
        first = int(plan.get("seed", 0)) + seed
        turns = plan.get("window")
        played = path if turns is None else work / f"{name}-{seed}-whole.jsonl"
        if not played.exists():
            collect_to_file(study.env, plan["policy"], int(plan["episodes"]), played, first, study.env_options)
        if turns is not None:
            games = load_trajectories(played)
            write_trajectories(path, (piece for game in games for piece in settled_windows(game, int(turns))))
    return path


def evaluate_run(study: Study, run: StudyRun, folder: Path, seed: int, progress: bool = True) -> GridResult:
    """Choose the run's decoding on the selection episodes and judge it on the test episodes."""
    settings = study.decoding[run.decoding]
    needs_behaviour = any(extraction(setting).needs_behaviour for setting in settings)
    policy = load_policy(folder, with_behaviour=needs_behaviour)

    def decoded(setting: Mapping[str, Any]) -> ModelPolicy:
        return with_setting(policy, setting, run.name)

    return select_and_evaluate(
        decoded,
        settings,
        lambda: make(study.env, **held_out(study, study.select)),
        select_episodes=study.select["episodes"],
        select_seed=study.select["seed"] + seed,
        test_env_factory=lambda: make(study.env, **held_out(study, study.test)),
        **_test(study, seed),
        progress=progress,
    )


def with_setting(policy: ModelPolicy, setting: Mapping[str, Any], name: str | None = None) -> ModelPolicy:
    """The policy with one setting of a decoding grid: an extraction, ``temperature``, ``beams``."""
    temperature, beams = float(setting.get("temperature", 1.0)), int(setting.get("beams", 1))
    return policy.with_decoding(extraction(setting), temperature, beams, name, setting.get("target_return"))


def history_before_each_turn(trajectory: Trajectory) -> list[Trajectory]:
    """The histories that the agent saw, one per turn of its own."""
    turns = trajectory.turns
    return [Trajectory(turns[:i]) for i, turn in enumerate(turns) if turn.is_agent]


def _laid_over(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``values`` with the leaves of ``changes`` in place of its own."""
    merged = dict(values)
    for name, change in changes.items():
        inner = merged.get(name)
        merged[name] = _laid_over(inner, change) if isinstance(inner, dict) and isinstance(change, dict) else change
    return merged


def read_yaml(text: str) -> Any:
    """YAML with numbers such as ``1e-4``, which YAML 1.1 reads as text."""
    return _numbers(yaml.safe_load(text))


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return value
        return number if math.isfinite(number) else value
    return value


def slug(name: str) -> str:
    """A run's name as the name of a folder."""
    return "".join(c if c.isalnum() or c in "-." else "_" for c in name)


def _last_log(path: Path) -> dict[str, Any]:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    entries = [line for line in lines if "loss" in line]
    names = ("step", "loss", "first_value", "first_return", "target_mean", "target_std", "clipped_share")
    return {name: round(entries[-1][name], 5) for name in names if name in entries[-1]} if entries else {}
