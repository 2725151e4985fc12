"""Tokens a processor second and peak memory of a training step of every method, beside SFT's on the same episodes.

    python benchmarks/methods.py [--json FILE] [--pairs 3]

Each method, with each vocabulary, has a process of its own. First it takes two steps alone: the memory is the peak
resident memory after them less what the process held before it had a model. Then its steps alternate with SFT's, made
in the same process: the ratio of times is the median over the pairs. Times are the processor's, so that what else the
machine does falls out of them.
Networks are GPT-2 with 2 layers of 256, head untied; 4 episodes of 16 turns, 12 tokens heard and 4 said in each.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import psutil
import torch
from cost import peak

from qsft.data.return_tokens import add_return_tokens
from qsft.data.tokenize import TrajectoryTokenizer
from qsft.data.trajectory import Trajectory, Turn

SFT = "sft, bc, filtered-bc"
#: Row of the table: method, and settings of its second stage beside those of all.
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    SFT: ("sft", {}),
    "return-conditioned": ("return-conditioned", {}),
    "qsft": ("qsft", {}),
    "qsft, Monte-Carlo": ("qsft", {"backup": "monte-carlo"}),
    "qsft, balanced, Monte-Carlo": ("qsft", {"form": "balanced", "backup": "monte-carlo"}),
    "monte-carlo": ("monte-carlo", {}),
    "ilql": ("ilql", {}),
    "cql": ("cql", {}),
    "q-transformer": ("q-transformer", {}),
    "awr": ("awr", {}),
    "archer-offline": ("archer-offline", {}),
}
VOCABULARIES = (64, 50257)
LAYERS, HIDDEN, HEADS = 2, 256, 4
EPISODES, TURNS, HEARD, SAID, SUPPORT = 4, 16, 12, 4, 16
LEVELS = [float(level) for level in range(-TURNS, 1)]


def episodes(vocabulary: int, count: int) -> list[Trajectory]:
    """Episodes of random words, a reward of -1 a turn."""
    draw = random.Random(0)

    def said(words: int) -> str:
        return " ".join(f"w{draw.randrange(vocabulary - 4)}" for _ in range(words - 1)) + "\n"

    exchanges = ((Turn("user", said(HEARD)), Turn("assistant", said(SAID), -1.0)) for _ in range(count * TURNS))
    turns = [turn for exchange in exchanges for turn in exchange]
    return [Trajectory(turns[i : i + 2 * TURNS], "terminated") for i in range(0, len(turns), 2 * TURNS)]


class Step:
    """A method's training step on its batch, with the loss, optimiser and slow copy that its trainer has."""

    def __init__(self, row: str, vocabulary: int, folder: str, count: int = EPISODES) -> None:
        import datasets

        from qsft.models.scratch import model_from_config, word_level_tokenizer
        from qsft.models.support import SupportRule, compute_support, with_support
        from qsft.training.callbacks import FollowModel
        from qsft.training.config import QSFTConfig, SFTConfig
        from qsft.training.critic_trainers import CRITICS
        from qsft.training.trainer import QSFTTrainer, SFTTrainer

        method, settings = ROWS[row]
        tokenizer = word_level_tokenizer([f"w{i}" for i in range(vocabulary - 4)])
        levels = LEVELS if method == "return-conditioned" else None
        if levels is not None:
            tokenizer = add_return_tokens(tokenizer, levels)
        as_row = TrajectoryTokenizer(tokenizer, "text", return_levels=levels)
        rows = [{**as_row(episode), "episode": i} for i, episode in enumerate(episodes(vocabulary, count))]
        dataset = datasets.Dataset.from_list(rows)
        sizes = {"n_layer": LAYERS, "n_embd": HIDDEN, "n_head": HEADS, "n_positions": 512}
        model = model_from_config({"model_type": "gpt2", "tie_word_embeddings": False, **sizes}, tokenizer, seed=0)
        common = {"output_dir": folder, "use_cpu": True, "disable_tqdm": True, "dataloader_pin_memory": False}
        bounds = {"return_low": -float(TURNS), "return_high": 0.0}
        self.trainer: SFTTrainer
        if method == "qsft":
            rule = SupportRule("relative", 1e-9, SUPPORT)  # always as many
            table = os.path.join(folder, "support.arrow")
            pad, dummy = tokenizer.pad_token_id, tokenizer.unk_token_id
            compute_support(
                model, dataset, rule, table, pad_token_id=pad, dummy_id=dummy, batch_size=EPISODES, progress=False
            )
            dataset = with_support(dataset, table)
            config = QSFTConfig(**common, **bounds, **settings)
            self.trainer = QSFTTrainer(model.train(), config, dataset, tokenizer)
        elif method in CRITICS:
            critic = CRITICS[method]
            self.trainer = critic(model, critic.config_class(**common, **bounds, **settings), dataset, tokenizer)
        else:
            self.trainer = SFTTrainer(model, SFTConfig(**common), dataset, tokenizer)
        self.loss: Any = self.trainer.loss_module.train()
        self.optimiser = self.trainer.create_optimizer()
        self.batch = self.trainer.data_collator(list(dataset))
        self.tokens = int(self.batch["attention_mask"].sum())
        self.has_target = any(isinstance(one, FollowModel) for one in self.trainer.callback_handler.callbacks)

    def __call__(self) -> float:
        """Take the step; its seconds of processor time."""
        started = time.process_time()
        self.loss(**self.batch)["loss"].backward()
        self.optimiser.step()
        self.optimiser.zero_grad()
        if self.has_target:
            self.loss.update_target(0.005)
        return time.process_time() - started


def measure(row: str, vocabulary: int, pairs: int) -> dict[str, float]:
    """One row's numbers; for a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        # imports and the libraries' own buffers are there before memory is measured
        Step(SFT, 16, folder, count=1)()
        before = psutil.Process().memory_info().rss
        step = Step(row, vocabulary, folder)
        step(), step()
        memory = peak() - before
        beside = Step(SFT, vocabulary, folder)
        beside()
        times = [(step(), beside()) for _ in range(pairs)]
    return {
        "tokens_per_second": step.tokens / statistics.median(own for own, _ in times),
        "step_ratio": statistics.median(own / sft for own, sft in times),
        "memory_mb": memory / 1e6,
    }


def in_process(row: str, vocabulary: int, pairs: int) -> dict[str, float]:
    """:func:`measure` in a fresh interpreter."""
    command = [sys.executable, os.path.abspath(__file__), "--row", row, str(vocabulary), "--pairs", str(pairs)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def table(result: dict[str, Any]) -> str:
    """The result in Markdown: a row a method, for each vocabulary tokens a second, time and memory over SFT's."""
    names = [f"V = {vocabulary:,}" for vocabulary in VOCABULARIES]
    columns = [f"{name}: {what}" for name in names for what in ("tokens/s", "time", "MB", "memory")]
    lines = ["| method | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for row in ROWS:
        cells = []
        for vocabulary in VOCABULARIES:
            own, sft = (result[str(vocabulary)][name] for name in (row, SFT))
            cells += [f"{own['tokens_per_second']:,.0f}", f"{own['step_ratio']:.2f}", f"{own['memory_mb']:,.0f}"]
            cells.append(f"{own['memory_mb'] / sft['memory_mb']:.2f}")
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--pairs", type=int, default=3, help="pairs of steps (default 3)")
    parser.add_argument("--row", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        print(json.dumps(measure(arguments.row[0], int(arguments.row[1]), arguments.pairs)))
        return
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    }
    for vocabulary in VOCABULARIES:
        result[str(vocabulary)] = {row: in_process(row, vocabulary, arguments.pairs) for row in ROWS}
    print(f"machine: {result['machine']}", table(result), sep="\n\n")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=2)


if __name__ == "__main__":
    main()
