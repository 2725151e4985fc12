"""Checkpoints of an unfinished stage: which one is whole, and its weights."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import safetensors
import torch
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from qsft.errors import CheckpointError

#: file that is written last
COMPLETE = "complete"


def last_checkpoint(folder: str | os.PathLike[str]) -> Path | None:
    """The newest complete checkpoint in a folder; incomplete ones (a kill while saving) are deleted."""
    root = Path(folder)
    numbered = (path for path in root.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.name.rpartition("-")[2].isdecimal())
    found = sorted(numbered, key=lambda path: int(path.name.rpartition("-")[2]))
    for path in found:
        if not (path / COMPLETE).exists():
            shutil.rmtree(path)
    complete = [path for path in found if path.exists()]
    return complete[-1] if complete else None


@torch.no_grad()
def load_weights(model: Any, folder: Path) -> None:
    """Put a saved checkpoint's weights into a model of the same architecture (an adapter's into a PEFT model)."""
    if hasattr(model, "peft_config"):
        from peft import load_peft_weights, set_peft_model_state_dict

    try:
        if hasattr(model, "peft_config"):
            set_peft_model_state_dict(model, load_peft_weights(str(folder)), adapter_name="default")
        else:
            model.load_state_dict(type(model).from_pretrained(folder, dtype=model.dtype).state_dict())
    except (OSError, RuntimeError, ValueError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{folder}: the checkpoint cannot be read: {str(error).splitlines()[0]}") from error
