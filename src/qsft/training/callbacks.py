"""What happens beside the steps of a training: the target network's update, and the log."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from qsft.data.text_files import write_text

if TYPE_CHECKING:
    from qsft.training.trainer import SFTTrainer


class FollowModel(TrainerCallback):
    """Moves the target after every optimiser step."""

    def __init__(self, trainer: SFTTrainer) -> None:
        self.trainer = trainer

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        loss: Any = self.trainer.loss_module
        loss.update_target(args.target_rate)


class JSONLinesLog(TrainerCallback):
    """Every log line of a stage as one JSON object a line, in a file that needs nothing to read.

    On resume, lines past the checkpoint are dropped, so that a step never stands twice. The summary that
    ``transformers`` logs at the end is left out: it covers the last sitting alone.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        kept = []
        if self.path.exists() and state.global_step > 0:
            # a line without its end was cut off by a kill
            lines = [line for line in self.path.read_text(encoding="utf-8").splitlines(True) if line.endswith("\n")]
            kept = [line for line in lines if json.loads(line)["step"] <= state.global_step]
        write_text(self.path, "".join(kept))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if logs and "train_loss" not in logs and state.is_world_process_zero:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step, **logs}) + "\n")
