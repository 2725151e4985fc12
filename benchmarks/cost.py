"""What stage 2 costs beside stage 1, and the chunked loss beside scoring every position; as ratios within one run.

    python benchmarks/cost.py [--json FILE] [--pairs 3]

Time: optimiser steps of both stages alternate at GPT-2-small size on the same batch; the median of the pairs' ratios.
Memory: peak resident memory of a fresh process while it computes the loss and its gradients, less what it held before.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time

import torch

from qsft import objectives
from qsft.models.states import STATE_KEYS
from qsft.models.target import make_target
from qsft.training.losses import QLoss, QLossSettings, SupervisedLoss

VOCABULARY, HIDDEN, LAYERS, HEADS = 50257, 768, 12, 12
ROWS, LENGTH, SUPPORT = 2, 256, 16
MEMORY_POSITIONS = 4096
BARS = {"time": 1.5, "memory": 0.15}


def make_batch() -> dict[str, torch.Tensor]:
    """Two trajectories of 256 tokens, a quarter of them the agent's, in turns of eight."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, VOCABULARY - 1, (ROWS, LENGTH), generator=generator)
    agent = (torch.arange(LENGTH) % 32 >= 24).expand(ROWS, -1)
    positions = torch.stack([torch.nonzero(row).flatten() - 1 for row in agent])
    states = positions.shape[1]
    turn_end = (torch.arange(states) % 8 == 7).expand(ROWS, -1)
    terminal = (torch.arange(states) == states - 1).expand(ROWS, -1)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "state_positions": positions,
        "actions": ids.gather(1, positions + 1),
        "state_mask": torch.ones(ROWS, states, dtype=torch.bool),
        "turn_end": turn_end,
        "rewards": -turn_end.float(),
        "terminal": terminal,
        "returns_to_go": -torch.rand(ROWS, states, generator=generator),
        "support_ids": torch.randint(0, VOCABULARY - 1, (ROWS, states, SUPPORT), generator=generator),
        "support_logps": torch.log_softmax(torch.randn(ROWS, states, SUPPORT, generator=generator), dim=-1),
    }


def time_ratio(pairs: int, form: str) -> dict[str, float]:
    """Median ratio of a stage-2 step to the stage-1 step beside it."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=VOCABULARY, n_embd=HIDDEN, n_layer=LAYERS, n_head=HEADS)
    model = GPT2LMHeadModel(config).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5)
    settings = QLossSettings(form, "soft", 15.0, 0.9, 1.0, "turn", (-8.0, 0.0), None, VOCABULARY - 1)
    q_loss = QLoss(model, make_target(model), settings).train()
    supervised = SupervisedLoss(model).train()
    batch = make_batch()
    plain = {key: value for key, value in batch.items() if key not in STATE_KEYS or not key.startswith("support")}

    def step(loss: SupervisedLoss, inputs: dict[str, torch.Tensor]) -> float:
        started = time.perf_counter()
        loss(**inputs)["loss"].backward()
        optimiser.step()
        optimiser.zero_grad()
        if isinstance(loss, QLoss):
            loss.target.update(model, 0.005)
        return time.perf_counter() - started

    step(supervised, plain), step(q_loss, batch)
    times = [(step(supervised, plain), step(q_loss, batch)) for _ in range(pairs)]
    return {
        "stage_1_seconds": statistics.median(first for first, _ in times),
        "stage_2_seconds": statistics.median(second for _, second in times),
        "ratio": statistics.median(second / first for first, second in times),
    }


def extra_memory(kind: str) -> int:
    """Bytes that a loss and its gradients need beyond their inputs; for a process of its own."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(MEMORY_POSITIONS, HIDDEN, generator=generator, requires_grad=True)
    weight = torch.randn(VOCABULARY, HIDDEN, generator=generator, requires_grad=True)
    ids = torch.randint(0, VOCABULARY, (MEMORY_POSITIONS,), generator=generator)
    agent = torch.arange(0, MEMORY_POSITIONS, 4)
    weights = torch.rand(len(agent), generator=generator)
    before = peak()
    if kind == "naive":
        logits = hidden @ weight.T
        logps = torch.log_softmax(logits, dim=-1)
        picked = logps.gather(1, ids[:, None])[agent, 0]
        loss = -(weights * picked + (1 - weights) * logps[agent, VOCABULARY - 1]).sum()
    else:
        fitted = objectives.dummy(ids[agent], weights, VOCABULARY - 1)
        loss, _ = objectives.linear_cross_entropy(hidden[agent], weight, None, fitted)
    loss.backward()
    return peak() - before


def peak() -> int:
    """Peak resident bytes of this process (Linux counts in KiB, macOS in bytes)."""
    value = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return value if sys.platform == "darwin" else value * 1024


def in_process(kind: str) -> int:
    """:func:`extra_memory` in a fresh interpreter."""
    command = [sys.executable, os.path.abspath(__file__), "--memory", kind]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--pairs", type=int, default=3, help="pairs of steps (default 3)")
    parser.add_argument("--memory", choices=("naive", "chunked"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        print(extra_memory(arguments.memory))
        return
    naive, chunked = in_process("naive"), in_process("chunked")
    result = {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "memory": {"naive_mb": naive / 1e6, "chunked_mb": chunked / 1e6, "ratio": chunked / naive},
        **{form: time_ratio(arguments.pairs, form) for form in ("dummy", "anchored")},
    }
    print(f"machine: {result['machine']}")
    print(f"loss memory at V={VOCABULARY}, H={HIDDEN}, {MEMORY_POSITIONS} positions, a quarter the agent's:")
    ratio = f"ratio {chunked / naive:.3f} (bar {BARS['memory']})"
    print(f"  every position {naive / 1e6:,.0f} MB, chunked {chunked / 1e6:,.0f} MB, {ratio}")
    for form in ("dummy", "anchored"):
        cost = result[form]
        print(
            f"step at GPT-2-small size, {form}: stage 1 {cost['stage_1_seconds']:.2f} s, "  # type: ignore[index]
            f"stage 2 {cost['stage_2_seconds']:.2f} s, ratio {cost['ratio']:.2f} (bar {BARS['time']})"  # type: ignore[index]
        )
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=2)


if __name__ == "__main__":
    main()
