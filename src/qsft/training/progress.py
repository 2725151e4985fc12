"""The bar of a training stage: rate, ETA, and the last loss, in one line."""

from __future__ import annotations

from typing import Any

from transformers import ProgressCallback, TrainerControl, TrainerState, TrainingArguments


class StageProgress(ProgressCallback):
    """`transformers`' bar, with the newest numbers behind it instead of a printed dict each time."""

    def __init__(self, description: str) -> None:
        super().__init__()
        self.description = description

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        if self.training_bar is not None:
            self.training_bar.set_description(self.description)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if self.training_bar is None or not logs or "loss" not in logs:
            return
        shown = {"loss": f"{logs['loss']:.4f}"}
        if "first_value" in logs:
            shown["V"] = f"{logs['first_value']:.3f}"
        self.training_bar.set_postfix(shown)
