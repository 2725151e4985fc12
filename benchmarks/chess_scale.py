"""Memory of making, tokenising and training on N, 4 N and 16 N games of chess: it does not grow with them.

    python benchmarks/chess_scale.py [--games 100] [--policy random] [--json FILE]
    python benchmarks/chess_scale.py --games 6250      # up to 100,000 games

Games are a random player's against another, 40 moves at most: their rows are as long as those of real ones and cost a
tenth; `--policy mixture` plays the real ones, against Stockfish. Each stage has a process of its own. Its memory is the
most that it holds while at work, sampled every 20 ms, less what it held before: pages of files that are mapped into
memory, which the system takes back when it needs them, are not counted (Linux only).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from qsft.data.dataset import tokenize_file
from qsft.data.tokenize import TrajectoryTokenizer
from qsft.envs import collect_to_file, symbols
from qsft.models.scratch import word_level_tokenizer
from qsft.training import RunSettings, train

STAGES = ("generate", "tokenise", "train")
FACTORS = (1, 4, 16)
STEPS, BATCH = 10, 2
SIZES = {"n_layer": 2, "n_embd": 128, "n_head": 4, "n_positions": 96}
RANDOM = {"opponent": "random", "max_moves": 40}


def work(stage: str, games: int, policy: str, folder: Path) -> None:
    """One stage on ``games`` games; it reads what the stage before it left in the folder."""
    played = folder / "games.jsonl"
    if stage == "generate":
        collect_to_file("chess", policy, games, played, seed=0, env_options=RANDOM if policy == "random" else {})
    else:
        tokenizer = word_level_tokenizer(symbols("chess"))
        if stage == "tokenise":
            tokenize_file(played, TrajectoryTokenizer(tokenizer, "text", max_exchanges=1), folder / "cache")
        else:
            steps = {"max_steps": STEPS, "logging_steps": STEPS, "save_steps": STEPS, "use_cpu": True}
            steps |= {"per_device_train_batch_size": BATCH, "max_exchanges": 1}
            plan = RunSettings("sft", str(played), {"model_type": "gpt2", **SIZES}, format="text", behaviour=steps)
            train(plan, folder / "run", tokenizer=tokenizer, cache_dir=folder / "cache", quiet=True)


class Watch:
    """The most memory of its own that this process holds, from ``start`` on."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._over = threading.Event()
        self.before = self.most = self._own()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """Bytes above those at the start."""
        self._over.set()
        self._thread.join()
        return self.most - self.before

    def _own(self) -> int:
        info = self._process.memory_info()
        return int(info.rss - info.shared)

    def _sample(self) -> None:
        while not self._over.wait(0.02):
            self.most = max(self.most, self._own())


def in_process(stage: str, games: int, policy: str, folder: Path) -> dict[str, float]:
    """:func:`work` in a fresh interpreter, which prints its memory and seconds."""
    command = [sys.executable, os.path.abspath(__file__), "--stage", stage, str(folder)]
    command += ["--games", str(games), "--policy", policy]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", type=int, default=100, help="N (default 100)")
    parser.add_argument("--policy", default="random", help="random (default) or mixture")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--stage", nargs=2, metavar=("STAGE", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage:
        watch, started = Watch(), time.perf_counter()
        work(arguments.stage[0], arguments.games, arguments.policy, Path(arguments.stage[1]))
        print(json.dumps({"mb": watch.stop() / 1e6, "seconds": time.perf_counter() - started}))
        return
    result = {}
    print("| games | " + " | ".join(STAGES) + " |\n|---:|" + "---:|" * len(STAGES))
    for games in (factor * arguments.games for factor in FACTORS):
        with tempfile.TemporaryDirectory() as folder:
            found = {stage: in_process(stage, games, arguments.policy, Path(folder)) for stage in STAGES}
        result[games] = found
        cells = (f"{found[stage]['mb']:,.0f} MB, {found[stage]['seconds']:,.0f} s" for stage in STAGES)
        print(f"| {games:,} | " + " | ".join(cells) + " |", flush=True)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
