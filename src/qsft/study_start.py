"""Which training of stage 1 a run of a study goes on from: noted when it begins, told in its row, and never another."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from qsft.data.dataset import content_hash
from qsft.data.text_files import make_folder, write_text
from qsft.errors import ConfigError
from qsft.models.policy_model import BEHAVIOUR_DIR
from qsft.study_file import Study, StudyRun, slug


def note_start(run: StudyRun, runs: Path) -> None:
    """Note beside a run that is about to be trained the weights that it goes on from, or see that they are those noted.

    Args:
        run: with ``behaviour_of``, whose own run is done.
        runs: folder of the seed's runs.

    Raises:
        ConfigError: the run has begun from other weights than those that lie there now.
    """
    assert run.behaviour_of is not None
    folder, note, now = runs / slug(run.name), _note(run, runs), _weights(runs / slug(run.behaviour_of))
    if folder.exists():
        if note.exists() and json.loads(note.read_text(encoding="utf-8"))["weights"] != now:
            raise ConfigError(
                f"{folder}: goes on from another training of {run.behaviour_of!r} than the one that is there now; delete "
                "the folder to train it again, and take its line out of the results"
            )
        return
    make_folder(note)
    write_text(note, json.dumps({"run": run.behaviour_of, "weights": now}))


def stage_one(study: Study, run: StudyRun, runs: Path) -> dict[str, str]:
    """The run whose model this one went on from, itself where no other's, and a hash of that model's weights.

    Rows tell by it whether stage 1 was the same: where its folder is gone it is trained anew, which elsewhere gives others.
    """
    if run.policy_of is not None:
        run = study.run_named(run.policy_of, "run")
    if run.behaviour_of is not None and (note := _note(run, runs)).exists():
        return dict(json.loads(note.read_text(encoding="utf-8")))
    name = run.behaviour_of or run.name
    return {"run": name, "weights": _weights(runs / slug(name))}


def hash_of(text: str) -> str:
    """A short hash."""
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _note(run: StudyRun, runs: Path) -> Path:
    """Beside the run's folder, which training makes itself."""
    return runs / f"{slug(run.name)}.start.json"


def _weights(folder: Path) -> str:
    own = folder / BEHAVIOUR_DIR
    files = sorted((own if own.exists() else folder).glob("*.safetensors"))
    return hash_of(" ".join(map(content_hash, files)))
