"""`qsft convert`: robot data of other formats to trajectories, and trajectories to Minari."""

from __future__ import annotations

import argparse
from typing import Any

from qsft.cli_players import positive
from qsft.errors import ConfigError

FORMATS = ("minari", "lerobot", "roboverse")
# What only says how vectors become trajectories.
_SETTINGS = ("bins", "percentiles", "instruction", "cameras", "image_size", "final_reward")


def add_convert(verbs: Any) -> None:
    """Adds the command to ``verbs``, the subparsers of `qsft`."""
    verb = verbs.add_parser(
        "convert", help="make trajectories of a robot data set, or a Minari data set of trajectories"
    )
    verb.add_argument("source", help="a data set's folder, file or (Minari) name; with --to a file of trajectories")
    way = verb.add_mutually_exclusive_group(required=True)
    way.add_argument("--from", dest="source_format", choices=FORMATS)
    way.add_argument("--to", choices=("minari",))
    verb.add_argument("--out", required=True, help="a .jsonl or .parquet file; with --to minari a name or a folder")
    verb.add_argument(
        "--bins", type=positive, help="symbols of each continuous dimension (default: those it had before, or 256)"
    )
    verb.add_argument(
        "--percentiles", action="store_const", const=True, help="actions between the data's 1st and 99th percentile"
    )
    verb.add_argument(
        "--instruction", action="store_const", const=True, help="begin each observation with what the episode was to do"
    )
    verb.add_argument("--cameras", nargs="*", metavar="NAME", help="whose pictures to write (default: all)")
    verb.add_argument("--image-size", type=positive, help="pixels of a side that pictures are resized to")
    verb.add_argument("--final-reward", type=float, help="LeRobot without rewards: that of an episode's last step")
    verb.set_defaults(run=_convert)


def _convert(arguments: argparse.Namespace) -> None:
    given = {name: getattr(arguments, name) for name in _SETTINGS if getattr(arguments, name) is not None}
    if arguments.to is not None:
        from qsft.data.minari import write_minari

        if given:
            raise ConfigError(f"--{next(iter(given)).replace('_', '-')}: goes with --from, not with --to.")
        episodes = write_minari(arguments.source, arguments.out)
    else:
        from qsft.data.vector_episodes import convert

        reward = given.pop("final_reward", None)
        if reward is not None and arguments.source_format != "lerobot":
            raise ConfigError(f"--final-reward: goes with --from lerobot; {arguments.source_format} has rewards.")
        episodes = convert(_source(arguments.source, arguments.source_format, reward), arguments.out, **given)
    print(f"{episodes} episodes in {arguments.out}")


def _source(path: str, format: str, final_reward: float | None) -> Any:
    if format == "minari":
        from qsft.data.minari import MinariSource

        return MinariSource(path)
    if format == "lerobot":
        from qsft.data.lerobot import LeRobotSource

        return LeRobotSource(path, final_reward)
    from qsft.data.roboverse import RoboverseSource

    return RoboverseSource(path)
