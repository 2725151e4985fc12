"""`qsft reproduce`: the runs of a study that have no row in its results yet."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from qsft.cli_players import chat_model, chat_options, natural, positive

# what a process of its own is told as well, where it is given
_PASSED_ON = ("model", "endpoint", "max_tokens", "timeout", "retries")


def add_reproduce(verbs: Any) -> None:
    """Adds the command to ``verbs``, the subparsers of `qsft`."""
    verb = verbs.add_parser("reproduce", help="do the runs of a study that have no row in its results yet")
    verb.add_argument("study", help="a YAML file, or a folder of them: games stands for experiments/games")
    verb.add_argument("--seeds", type=natural, nargs="+", help="default: 0 1 2")
    verb.add_argument("--only", nargs="+", default=[], metavar="NAME", help="names of the runs to do")
    verb.add_argument("--quick", action="store_true", help="the reduced form of each study, one seed unless --seeds")
    verb.add_argument("--results", metavar="FILE", help="default: results.json beside the study (results-quick.json)")
    verb.add_argument("--work", metavar="DIR", default="runs", help="folder for data and models (default: runs)")
    verb.add_argument("--jobs", type=positive, default=1, help="studies and seeds that are done at once (default: 1)")
    chat_options(verb)
    verb.set_defaults(run=_reproduce)


def _reproduce(arguments: argparse.Namespace) -> None:
    from qsft.evaluation import GAME_SCALES, ResultsFile, print_table
    from qsft.study import check_rows, run_study, wanted_runs
    from qsft.study_file import Study, study_files

    form = "-quick" if arguments.quick else ""
    seeds = arguments.seeds or ([0] if arguments.quick else [0, 1, 2])
    studies = _with_runs(
        [(path, Study.load(path, arguments.quick)) for path in study_files(arguments.study)], arguments.only
    )
    chat = None if arguments.model is None else chat_model(arguments)
    places = {
        path: (
            Path(arguments.work) / (path.stem + form),
            Path(arguments.results) if arguments.results else path.parent / f"results{form}.json",
        )
        for path, _, _ in studies
    }
    for path, study, only in studies:
        check_rows(study, ResultsFile(places[path][1]), wanted_runs(study, seeds, only), chat)
    if arguments.jobs > 1:
        _side_by_side(arguments, studies, seeds, places)
    for path, study, only in studies:
        work, results = places[path]
        for seed in seeds:
            command = f"qsft reproduce {path}{' --quick' if arguments.quick else ''} --seeds {seed}"
            run_study(study, work, results, [seed], command, only, chat=chat)
        names = {run.name for run in study.runs}
        rows = [
            row
            for row in ResultsFile(results).rows()
            if isinstance(row.config, str) and row.config in names and row.env == study.row_env
        ]
        if rows:
            print_table(rows, GAME_SCALES.get(study.row_env), title=f"{path.stem} ({results})")


def _with_runs(studies: list[Any], only: list[str]) -> list[Any]:
    """The studies that have a run of these names, with those of its own; all of them where none is asked for.

    Raises:
        ConfigError: none has a run of one of the names.
    """
    from qsft.errors import ConfigError

    known = dict.fromkeys(run.name for _, study in studies for run in study.runs)
    if unknown := [name for name in only if name not in known]:
        raise ConfigError(f"--only: no run is called {unknown[0]!r}; there are {', '.join(known)}.")
    own = [(path, study, [run.name for run in study.runs if run.name in only]) for path, study in studies]
    return [each for each in own if not only or each[2]]


def _side_by_side(arguments: argparse.Namespace, studies: list[Any], seeds: list[int], places: dict[Path, Any]) -> None:
    """Each study and seed that lacks a row in a process of its own, so many at once."""
    from qsft.evaluation import ResultsFile
    from qsft.jobs import Job, run_jobs
    from qsft.policies.prompting import KINDS as PROMPTED
    from qsft.study import key_of, wanted_runs

    def finished() -> set[tuple[Path, Any]]:
        files = dict.fromkeys(results for _, results in places.values())
        return {(path, row.key) for path in files for row in ResultsFile(path).rows()}

    passed = ["--quick"] if arguments.quick else []
    for name in _PASSED_ON:
        value = getattr(arguments, name)
        if value is not None:
            passed += [f"--{name.replace('_', '-')}", str(value)]
    prompting = arguments.model is not None
    before, missing, jobs = finished(), set[tuple[Path, Any]](), []
    for seed in seeds:
        for path, study, only in studies:
            work, results = places[path]
            runs = [run for _, run in wanted_runs(study, [seed], only)]
            keys = {(results, key_of(study, run, seed)) for run in runs if prompting or run.method not in PROMPTED}
            if keys <= before:
                continue
            missing |= keys - before
            told = ("reproduce", path, "--seeds", seed, "--results", results, "--work", arguments.work)
            command = (sys.executable, "-m", "qsft.cli", *map(str, told), *passed, *(["--only", *only] if only else []))
            jobs.append(Job(f"{path.stem}, seed {seed}", command, work / f"seed-{seed}.log"))
    if jobs:
        run_jobs(jobs, arguments.jobs, lambda: len(missing & finished()), len(missing), "rows")
