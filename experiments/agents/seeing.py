"""Whether a policy looks: how likely it finds what a player of new games did, with the pictures and with grey ones.

    python experiments/agents/seeing.py runs/alfworld-image/seed-0/SFT

More sensitive than games won: every token counts. The games are of houses that nobody trained in, the same for both.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from qsft import load_policy
from qsft.data import TrajectoryCollator, load_trajectories
from qsft.data.batch import pad_token
from qsft.data.pictures import with_paths
from qsft.envs import collect_to_file
from qsft.evaluation.statistics import mean_interval, paired_difference
from qsft.policies import ModelPolicy
from qsft.study_file import Study, episode_options
from qsft.training.losses import SupervisedLoss

STUDY = Path(__file__).with_name("alfworld-image.yaml")


@torch.no_grad()
def losses(policy: ModelPolicy, games: Path) -> Iterator[float]:
    """Mean of -log p over the agent's tokens of each game, in nats."""
    loss = SupervisedLoss(policy.model.inner)
    collator = TrajectoryCollator(pad_token(policy.tokenizer.tokenizer), images=policy.tokenizer.images)
    for game in load_trajectories(games):
        batch = collator([policy.tokenizer(with_paths(game, games.parent))])
        yield loss(**batch)["loss"].item()


def compare(policy: ModelPolicy, env: str, options: dict[str, Any], player: str, games: int, seed: int) -> str:
    """A table: the loss with pictures, with grey ones, and the difference over the same games, with 95% intervals."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, blank in (("pictures", False), ("grey pictures", True)):
            file = Path(folder) / f"{blank}.jsonl"
            collect_to_file(env, player, games, file, seed, {**options, "blank": blank})
            found[name] = list(losses(policy, file))
    estimates = {name: mean_interval(values) for name, values in found.items()}
    estimates["difference"] = paired_difference(found["grey pictures"], found["pictures"])
    rows = [f"| {name} | {e.mean:.3f} [{e.low:.3f}, {e.high:.3f}] |" for name, e in estimates.items()]
    return "\n".join([f"| {games} games | nats a token [95% CI] |", "|---|---:|", *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder of a run of alfworld-image.yaml")
    parser.add_argument("--player", default="population", help="whose games; take the one the run has learnt from")
    parser.add_argument("--games", type=int, default=200)
    parser.add_argument("--seed", type=int, default=700_000)
    arguments = parser.parse_args()
    study = Study.load(STUDY)
    options = episode_options(study, study.test)
    policy = load_policy(arguments.run)
    print(compare(policy, study.env, options, arguments.player, arguments.games, arguments.seed))


if __name__ == "__main__":
    main()
