"""`qsft values` and `qsft video`: one logged episode as a chart of values, and as a film."""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path
from typing import Any

from qsft.cli_players import positive
from qsft.errors import ConfigError, DataError


def add_values(verbs: Any) -> None:
    """Adds `qsft values` to ``verbs``, the subparsers of `qsft`."""
    verb = verbs.add_parser("values", help="draw what a run expects, turn by turn, over a logged episode")
    verb.add_argument("policy", metavar="RUN", help="folder of a run whose method has Q-values")
    _episode_options(verb)
    verb.add_argument("--out", required=True, help="a .svg, .png or .html file")
    verb.set_defaults(run=_values)


def add_video(verbs: Any) -> None:
    """Adds `qsft video`."""
    verb = verbs.add_parser("video", help="make a film of a logged episode")
    _episode_options(verb)
    verb.add_argument("--out", required=True, help="a .mp4 or .gif file")
    verb.add_argument("--size", type=positive, default=256, help="height of its pictures in pixels (default: 256)")
    verb.add_argument("--values", metavar="RUN", help="beside the pictures, what this run expects")
    verb.add_argument(
        "--env-option", action="append", default=[], metavar="NAME=VALUE", help="what a robot task was collected with"
    )
    verb.set_defaults(run=_video)


def _episode_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("file", metavar="FILE", help="trajectories")
    verb.add_argument("--episode", type=int, default=0, help="which, from 0")


def _values(arguments: argparse.Namespace) -> None:
    from qsft.evaluation.values_over_time import check_ending, save_values

    check_ending(arguments.out)  # before models are loaded
    trajectory, folder, where = _episode(arguments)
    title = f"{Path(arguments.file).name}, episode {arguments.episode}"
    save_values(_turn_values(arguments.policy, trajectory, folder, where), arguments.out, title)
    print(f"values in {arguments.out}")


def _video(arguments: argparse.Namespace) -> None:
    from qsft.cli import _pairs
    from qsft.data.video import check_ending
    from qsft.evaluation.film import save_film

    check_ending(arguments.out)
    trajectory, folder, where = _episode(arguments)
    values = None if arguments.values is None else _turn_values(arguments.values, trajectory, folder, where)
    noted = trajectory.metadata.get("env_options")
    options = {**(noted if isinstance(noted, dict) else {}), **_pairs(arguments.env_option, "--env-option")}
    save_film(trajectory, arguments.out, arguments.size, folder, options, values)
    print(f"film in {arguments.out}")


def _episode(arguments: argparse.Namespace) -> tuple[Any, Path, str]:
    """The trajectory that is asked for, what the paths of its pictures are relative to, and how errors name it."""
    from qsft.data.files import RowFile
    from qsft.data.rows import trajectory_from_row

    rows = RowFile(arguments.file)
    if arguments.episode < 0:
        raise ConfigError(f"--episode: {arguments.episode}; they are counted from 0.")
    found = next(islice(rows, arguments.episode, None), None)
    if found is None:
        raise DataError(f"{arguments.file}: has no episode {arguments.episode}; they are counted from 0")
    number, row = found
    where = rows.where(number)
    return trajectory_from_row(row, where), rows.folder, where


def _turn_values(run: str, trajectory: Any, folder: Path, where: str) -> list[Any]:
    """What a run expects at each turn, with the discount and the backup that it was trained with."""
    from qsft.data.pictures import with_paths
    from qsft.evaluation.values_over_time import turn_values
    from qsft.policies.load import WITH_Q_HEADS, load_policy, read_run

    settings = read_run(Path(run))["settings"]
    method = settings["method"]
    if method != "qsft" and method not in WITH_Q_HEADS:
        raise ConfigError(f"{run}: a run of {method} has no Q-values; give one of qsft, {', '.join(WITH_Q_HEADS)}.")
    stage = settings["likelihood" if method == "qsft" else "critic"]
    given = {name: stage[name] for name in ("gamma", "gamma_per", "backup_beta") if name in stage}
    if stage.get("backup") == "max":
        given["backup_beta"] = None
    elif stage.get("weight_temperature") is not None:
        given["backup_beta"] = 1 / stage["weight_temperature"]
    policy = load_policy(run, with_behaviour=method == "qsft")
    try:
        return turn_values(policy, with_paths(trajectory, folder), **given)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
