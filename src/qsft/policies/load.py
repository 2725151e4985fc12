"""From the folder of a run to a policy that plays."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from qsft.data.tokenize import TrajectoryTokenizer
from qsft.errors import CheckpointError, ConfigError
from qsft.models.extraction import Extraction
from qsft.models.policy_model import QSFTPolicyModel, load_causal_lm
from qsft.models.scratch import load_processor
from qsft.models.states import max_positions
from qsft.models.value_model import ValueModel, load_value_model
from qsft.policies.decoding import extraction as saved_extraction
from qsft.policies.decoding import read_decoding
from qsft.policies.legal import LegalActions
from qsft.policies.model import ModelPolicy

#: methods whose policy is a language model with Q heads; the others but ``qsft`` leave an ordinary one
WITH_Q_HEADS = ("ilql", "cql", "q-transformer", "monte-carlo")
#: extractions of a method's policy; of those not named here ``product`` alone, which plays the model as it is
EXTRACTIONS_OF = {"qsft": ("product", "value", "likelihood"), **dict.fromkeys(WITH_Q_HEADS, ("product", "advantage"))}


def load_policy(
    run: str | os.PathLike[str],
    *,
    extraction: Extraction | None = None,
    temperature: float | None = None,
    beams: int | None = None,
    target_return: float | None = None,
    with_behaviour: bool = False,
    legal_actions: LegalActions | None = None,
    seed: int = 0,
    **kwargs: Any,
) -> ModelPolicy:
    """The policy that a run of ``qsft train`` left behind.

    Args:
        run: its folder.
        extraction: how tokens are drawn, instead of the run's; for supervised methods only ``product`` (the model
            itself) makes sense.
        temperature: of sampling, 0 for greedy; ``None``: the run's (0 unless changed).
        beams: above 1, beam search (needs temperature 0); ``None``: the run's (1 unless changed).
        target_return: of ``return-conditioned``, what an episode is to return; ``None``: the run's (the best return
            of an episode in its data unless changed).
        with_behaviour: load the behaviour model too, for Q-values.
        legal_actions: of the environment, where the policy is to be kept to them (see :class:`ModelPolicy`).
        seed: of the sampling.
        kwargs: passed to ``from_pretrained`` (``dtype``, ``device_map``, ...).

    The run's own decoding is that of its ``decoding.json``, where there is one
    (:func:`qsft.policies.decoding.write_decoding`). A history longer than the run's ``max_length`` loses its oldest
    exchanges, as in training; without one the model's positions are the limit, since an episode in play may become longer
    than those of the data.

    Raises:
        CheckpointError: the run is unfinished or not a run.
        ConfigError: Q-values, or an extraction that reads them, are asked of a run that has none.
    """
    folder = Path(run)
    record = read_run(folder)
    method = record["settings"]["method"]
    saved = read_decoding(folder)
    if extraction is None and saved:
        extraction = saved_extraction(saved)
    model: QSFTPolicyModel | ValueModel
    if method in WITH_Q_HEADS:
        model = load_value_model(folder, extraction, **kwargs)
    elif method == "qsft":
        model = QSFTPolicyModel.from_pretrained(folder, extraction=extraction, with_behaviour=with_behaviour, **kwargs)
    else:
        if with_behaviour or (extraction or Extraction()).needs_behaviour:
            raise ConfigError(
                f"{folder}: a run of {method} has no Q-values; give one of qsft, or of a method with Q heads."
            )
        model = QSFTPolicyModel.combine(
            load_causal_lm(folder, exact=True, **kwargs), None, dummy_token_id=None, extraction=extraction
        )
    trajectories = TrajectoryTokenizer.from_dict(load_processor(folder), record["trajectories"])
    if trajectories.max_length is None:
        trajectories.max_length = max_positions(model.inner)
    if temperature is None:
        temperature = float(saved.get("temperature", model.config.sampling_temperature))
    if target_return is None:
        target_return = saved.get("target_return", record.get("best_return"))
    beams = int(saved.get("beams", 1)) if beams is None else beams
    return ModelPolicy(
        model,
        trajectories,
        method,
        temperature,
        int(record["reply_tokens"]),
        beams,
        seed,
        target_return=target_return,
        legal_actions=legal_actions,
    )


def read_run(folder: Path) -> dict[str, Any]:
    """What ``run.json`` says of a finished run."""
    path = folder / "run.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        finished, _ = record["finished"], record["settings"]["method"]
        if finished:
            record["trajectories"], record["reply_tokens"]
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder}: no run.json; give the folder of a run of `qsft train`.") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); train again.") from error
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: is not the record of a run of `qsft train` ({error!r}); give one.") from error
    if not finished:
        raise CheckpointError(f"{folder}: the run is unfinished; continue it with `qsft train ... --resume`.")
    return record
