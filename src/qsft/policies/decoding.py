"""How a policy decodes, as a grid writes it, and as it is kept beside a run."""

from __future__ import annotations

import json
import math
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
_OF_THE_EXTRACTION = ("beta", "eta", "support")


def extraction(setting: Mapping[str, Any]) -> Extraction:
    """The extraction of a decoding setting such as ``{extraction: value, beta: 64, support: .1, temperature: 0}``.

    Raises:
        ConfigError: a name that is no part of a setting, or a wrong value.
    """
    values = {name: value for name, value in setting.items() if name not in ("extraction", *_OF_THE_POLICY)}
    for name in _OF_THE_EXTRACTION:
        _check_number(setting, name)
    try:
        return Extraction(setting.get("extraction", "product"), **values)
    except TypeError as error:
        known = ", ".join(("extraction", *_OF_THE_EXTRACTION, *_OF_THE_POLICY))
        raise ConfigError(f"decoding: {wrong_argument(error)}; there are {known}.") from error


def sampling(setting: Mapping[str, Any]) -> tuple[float, int, float | None]:
    """Temperature, beams and wanted return of a decoding setting: 1.0, 1 and ``None`` (the policy's) unless it says others.

    Raises:
        ConfigError: a wrong value.
    """
    temperature, beams, target_return = setting.get("temperature", 1.0), setting.get("beams", 1), None
    _check_number(setting, "temperature")
    if setting.get("target_return") is not None:
        _check_number(setting, "target_return")
        target_return = float(setting["target_return"])
    if isinstance(beams, bool) or not isinstance(beams, int):
        raise ConfigError(f"beams: {beams!r:.40} is no whole number.")
    check_sampling(temperature, beams)
    return float(temperature), beams, target_return


def check_sampling(temperature: float, beams: int) -> None:
    """Raises ConfigError where a policy cannot draw, or search, so."""
    if not 0 <= temperature < math.inf:
        raise ConfigError(f"temperature: {temperature} must be finite and not negative; 0 plays greedily.")
    if beams < 1 or (beams > 1 and temperature > 0):
        raise ConfigError(f"beams: {beams} with temperature {temperature}; beam search needs temperature 0.")


def _check_number(setting: Mapping[str, Any], name: str) -> None:
    value = setting.get(name, 0.0)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"{name}: {value!r:.40} is no number.")


def with_setting(policy: ModelPolicy, setting: Mapping[str, Any], name: str | None = None) -> ModelPolicy:
    """The policy with one setting of a decoding grid.

    Args:
        policy: whose models play.
        setting: as for :func:`extraction` (``product`` unless it says another), with what :func:`sampling` reads.
        name: of the new policy; ``None``: that of ``policy``.

    Raises:
        ConfigError: a name that is no part of a setting, or a value that the models cannot do.
    """
    temperature, beams, target_return = sampling(setting)
    return policy.with_decoding(extraction(setting), temperature, beams, name, target_return)


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
        sampling({"temperature": 0, **setting})
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
