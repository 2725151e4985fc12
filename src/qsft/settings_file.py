"""Settings as people write them: YAML, with numbers such as ``3e-4``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import yaml

from qsft.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads ``3e-4`` as text, for want of a dot; YAML 1.2 and people do not."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"), list("-+.0123456789")
)


def read_yaml(text: str, where: str) -> Any:
    """What a text of YAML holds.

    Raises:
        ConfigError: it is none; ``where`` is named.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: cannot be read as YAML: {' '.join(str(error).split())}") from error


def read_yaml_file(path: str | os.PathLike[str]) -> Any:
    """What a file of YAML holds.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    return read_yaml(text, str(path))
