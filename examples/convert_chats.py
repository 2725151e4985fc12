"""A chat dataset with a score a conversation becomes a file of episodes: the score is the last reply's reward.

python examples/convert_chats.py chats.jsonl --score solved --out episodes.jsonl

The source is a JSON Lines file, or the hub id of a dataset, with a `messages` column and a column that holds the score.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from datasets import load_dataset

from qsft import Trajectory, write_trajectories
from qsft.data import trajectory_from_row


def episodes(rows: Iterable[Mapping[str, Any]], score: str) -> Iterator[Trajectory]:
    for number, row in enumerate(rows, 1):
        replies = sum(message["role"] == "assistant" for message in row["messages"])
        if replies == 0:
            continue  # nobody to learn from
        # A reward for each reply. Where each has one of its own, give those: they say which reply was the good one.
        rewards = [0.0] * (replies - 1) + [float(row[score])]
        yield trajectory_from_row({"messages": row["messages"], "rewards": rewards}, f"row {number}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="JSON Lines file or hub id")
    parser.add_argument("--score", required=True, help="column with the conversation's score")
    parser.add_argument("--split", default="train")
    parser.add_argument("--out", required=True, help="a .jsonl or .parquet file")
    arguments = parser.parse_args()

    if Path(arguments.source).exists():
        rows = load_dataset("json", data_files=arguments.source, split="train")
    else:
        rows = load_dataset(arguments.source, split=arguments.split)
    write_trajectories(arguments.out, episodes(rows, arguments.score))
    print(f"{arguments.out}: check it with `qsft validate {arguments.out}`")


if __name__ == "__main__":
    main()
