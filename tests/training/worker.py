"""One of several training processes; also called alone, as the truth that they are compared with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import datasets
import torch
from peft import LoraConfig, get_peft_model

from qsft.models import with_support
from qsft.training import QSFTConfig, QSFTTrainer
from tests.models import tiny


def run(rank: int, world: int, port: int, folder: Path) -> None:
    """Trains a whole model and an adapter; leaves weights and losses of both in a file."""
    if world > 1:
        torch.set_num_threads(1)
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
        numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world}
        os.environ.update(address | {name: str(value) for name, value in numbers.items()})
    results = {name: train(world, folder, name == "adapters") for name in ("whole", "adapters")}
    torch.save(results, folder / f"{world}-{rank}.pt")


def train(world: int, folder: Path, adapters: bool) -> dict[str, Any]:
    """Three steps of stage 2 on batches of 4, whatever the number of processes."""
    data = with_support(datasets.Dataset.from_file(str(folder / "tokens.arrow")), folder / "support.arrow")
    model = tiny.make("llama", seed=10)
    if adapters:
        torch.manual_seed(0)
        model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    args = QSFTConfig(
        output_dir=str(folder / "out"),
        use_cpu=True,
        ddp_backend="gloo" if world > 1 else None,
        disable_tqdm=True,
        max_steps=3,
        per_device_train_batch_size=4 // world,
        learning_rate=0.1,
        lr_scheduler_type="constant",
        optim="sgd",
        max_grad_norm=0.5,
        logging_steps=1,
        save_strategy="no",
        return_low=-2.5,
        return_high=2.0,
        target_rate=0.2,
    )
    trainer = QSFTTrainer(model, args, data, tiny.tokenizer())
    trainer.train()
    target, trained = trainer.loss_module.target.pairs(trainer.inner_model)
    logs = [[line["loss"], line["grad_norm"]] for line in trainer.state.log_history if "loss" in line]
    return {"weights": trained, "target": target, "logs": torch.tensor(logs)}
