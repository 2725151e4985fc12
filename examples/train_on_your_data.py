"""Q-SFT on your own episodes (their format: docs/data.md), then what the policy says beside what the data says.

python examples/train_on_your_data.py episodes.jsonl --model Qwen/Qwen2.5-0.5B-Instruct --out runs/mine
"""

from __future__ import annotations

import argparse
from itertools import islice

from qsft import RunSettings, Trajectory, load_policy, load_trajectories, train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="JSONL or Parquet file of episodes")
    parser.add_argument("--model", required=True, help="hub id or local checkpoint")
    parser.add_argument("--out", required=True, help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="continue a run that was interrupted")
    arguments = parser.parse_args()

    settings = RunSettings(
        method="qsft",
        data=arguments.data,
        model=arguments.model,
        behaviour={"num_train_epochs": 1},
        likelihood={"num_train_epochs": 1},
    )
    train(settings, arguments.out, resume=arguments.resume)

    policy = load_policy(arguments.out, temperature=0)
    for episode in islice(load_trajectories(arguments.data), 3):
        first = next(i for i, turn in enumerate(episode.turns) if turn.is_agent)
        opening = Trajectory(episode.turns[:first])
        print(
            f"\n{opening.turns[-1].text}\n  data:   {episode.turns[first].text}\n  policy: {policy.act([opening])[0]}"
        )


if __name__ == "__main__":
    main()
