"""From the folder of a run to a policy that plays."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from qsft.data.tokenize import TrajectoryTokenizer
from qsft.errors import CheckpointError
from qsft.models.extraction import Extraction
from qsft.models.policy_model import QSFTPolicyModel, load_causal_lm
from qsft.models.scratch import load_tokenizer
from qsft.policies.model import ModelPolicy


def load_policy(
    run: str | os.PathLike[str],
    *,
    extraction: Extraction | None = None,
    temperature: float | None = None,
    beams: int = 1,
    with_behaviour: bool = False,
    seed: int = 0,
    **kwargs: Any,
) -> ModelPolicy:
    """The policy that a run of ``qsft train`` left behind.

    Args:
        run: its folder.
        extraction: how tokens are drawn, instead of the run's; for supervised methods only ``product`` (the model
            itself) makes sense.
        temperature: of sampling, 0 for greedy; ``None``: the run's (0 unless changed).
        beams: above 1, beam search (needs temperature 0).
        with_behaviour: load the behaviour model too, for Q-values.
        seed: of the sampling.
        kwargs: passed to ``from_pretrained`` (``dtype``, ``device_map``, ...).

    Raises:
        CheckpointError: the run is unfinished or not a run.
    """
    folder = Path(run)
    record = read_run(folder)
    method = record["settings"]["method"]
    if method == "qsft":
        model = QSFTPolicyModel.from_pretrained(folder, extraction=extraction, with_behaviour=with_behaviour, **kwargs)
    else:
        model = QSFTPolicyModel.combine(
            load_causal_lm(folder, **kwargs), None, dummy_token_id=None, extraction=extraction
        )
    trajectories = TrajectoryTokenizer.from_dict(load_tokenizer(folder), record["trajectories"])
    if temperature is None:
        temperature = float(model.config.sampling_temperature)
    return ModelPolicy(model, trajectories, method, temperature, int(record["reply_tokens"]), beams, seed)


def read_run(folder: Path) -> dict[str, Any]:
    """What ``run.json`` says of a finished run."""
    path = folder / "run.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        finished, _ = record["finished"], record["settings"]["method"]
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder}: no run.json; give the folder of a run of `qsft train`.") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); train again.") from error
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: is not the record of a run of `qsft train` ({error!r}); give one.") from error
    if not finished:
        raise CheckpointError(f"{folder}: the run is unfinished; continue it with `qsft train ... --resume`.")
    return record
