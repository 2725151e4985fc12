"""How a policy decodes, as a grid writes it, and as it is kept beside a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qsft.data.text_files import write_text
from qsft.errors import CheckpointError, ConfigError
from qsft.models.extraction import Extraction

DECODING_FILE = "decoding.json"
_OF_THE_POLICY = ("temperature", "beams", "target_return")


def extraction(setting: Mapping[str, Any]) -> Extraction:
    """The extraction of a decoding setting such as ``{extraction: value, beta: 64, support: .1, temperature: 0}``.

    Raises:
        ConfigError: a name that is no part of a setting.
    """
    values = {name: value for name, value in setting.items() if name not in ("extraction", *_OF_THE_POLICY)}
    try:
        return Extraction(setting.get("extraction", "product"), **values)
    except TypeError as error:
        raise ConfigError(
            f"decoding: {str(error).split('__init__() ')[-1]}; there are extraction, beta, eta, support, "
            f"{', '.join(_OF_THE_POLICY)}."
        ) from error


def read_decoding(run: Path) -> dict[str, Any]:
    """The setting that was saved with a run; empty where none was.

    Raises:
        CheckpointError: the file is not such a setting.
    """
    path = run / DECODING_FILE
    if not path.exists():
        return {}
    try:
        setting = json.loads(path.read_text(encoding="utf-8"))
        extraction(setting)
        float(setting.get("temperature", 0)), int(setting.get("beams", 1)), float(setting.get("target_return", 0))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: is not a decoding ({error}); delete it, or save another.") from error
    return dict(setting)


def write_decoding(run: Path, policy: Any) -> None:
    """Keep how a :class:`~qsft.policies.model.ModelPolicy` decodes as the run's own."""
    chosen = policy.extraction.to_dict()
    setting = {"extraction": chosen.pop("kind"), **chosen, "temperature": policy.temperature, "beams": policy.beams}
    if policy.target_return is not None:
        setting["target_return"] = policy.target_return
    write_text(run / DECODING_FILE, json.dumps(setting, indent=2) + "\n")
