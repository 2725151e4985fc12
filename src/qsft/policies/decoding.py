"""How a policy decodes, as a grid writes it, and as it is kept beside a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsft.data.text_files import write_text
from qsft.errors import CheckpointError, ConfigError, wrong_argument
from qsft.models.extraction import Extraction

if TYPE_CHECKING:
    from qsft.policies.model import ModelPolicy

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
            f"decoding: {wrong_argument(error)}; there are extraction, beta, eta, support, {', '.join(_OF_THE_POLICY)}."
        ) from error


def with_setting(policy: ModelPolicy, setting: Mapping[str, Any], name: str | None = None) -> ModelPolicy:
    """The policy with one setting of a decoding grid.

    Args:
        policy: whose models play.
        setting: as for :func:`extraction` (``product`` unless it says another), with ``temperature`` (default 1.0),
            ``beams`` (default 1) and ``target_return`` (default: the policy's).
        name: of the new policy; ``None``: that of ``policy``.

    Raises:
        ConfigError: a name that is no part of a setting, or a value that the models cannot do.
    """
    temperature, beams = float(setting.get("temperature", 1.0)), int(setting.get("beams", 1))
    return policy.with_decoding(extraction(setting), temperature, beams, name, setting.get("target_return"))


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


def write_decoding(run: Path, policy: ModelPolicy) -> None:
    """Keep how a policy decodes as the run's own."""
    chosen = policy.extraction.to_dict()
    setting = {"extraction": chosen.pop("kind"), **chosen, "temperature": policy.temperature, "beams": policy.beams}
    if policy.target_return is not None:
        setting["target_return"] = policy.target_return
    write_text(run / DECODING_FILE, json.dumps(setting, indent=2) + "\n")
