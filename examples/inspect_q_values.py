"""What a Q-SFT run thinks of one logged episode: the value of each reply, of its tokens, of what else was plausible.

python examples/inspect_q_values.py runs/mine episodes.jsonl --episode 0
"""

from __future__ import annotations

import argparse
from itertools import islice

from qsft import Trajectory, load_policy, load_trajectories


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder of a finished `qsft train qsft` run")
    parser.add_argument("data", help="file of episodes")
    parser.add_argument("--episode", type=int, default=0, help="which row, from 0")
    arguments = parser.parse_args()

    policy = load_policy(arguments.run, with_behaviour=True)
    episode = next(islice(load_trajectories(arguments.data), arguments.episode, None))
    for i, turn in enumerate(episode.turns):
        if not turn.is_agent:
            print(f"{turn.role}: {turn.text.rstrip()}")
            continue
        history = Trajectory(episode.turns[:i])
        reply = policy.q_values(history, [turn.text])[0]
        print(f"agent: {turn.text.rstrip()}   reward {turn.reward:g}, Q {reply.q:.3f}")
        for token, others in zip(reply.tokens, reply.alternatives, strict=True):
            shown = ", ".join(f"{other.token!r} {other.q:.3f}" for other in others[:5])
            print(f"    {token.token!r:>12} Q {token.q:7.3f}  prior {token.prior:.3f}   best of the support: {shown}")


if __name__ == "__main__":
    main()
