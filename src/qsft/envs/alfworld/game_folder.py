"""A folder of the original's games, as both adapters read it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from qsft.errors import ConfigError

# The original leaves these out as well: it has no rules for them.
_NOT_PLAYED = ("movable", "Sliced")


@lru_cache(maxsize=8)  # thousands of folders, and many environments play them side by side
def game_names(folder: Path, file: str) -> tuple[str, ...]:
    """The folders below ``folder`` with a ``file`` of a game that has rules, relative to it and in order.

    Looked up once in a process.
    """
    found = (str(path.parent.relative_to(folder)) for path in sorted(folder.rglob(file)))
    return tuple(name for name in found if not any(word in name for word in _NOT_PLAYED))


def task_type(metadata: Mapping[str, Any]) -> str | None:
    """The type of an episode's task, with which the original begins a game's name."""
    return Path(metadata["game"]).parent.name.partition("-")[0] or None


def no_games(env: str, folder: str | os.PathLike[str], file: str) -> ConfigError:
    """What to raise where a folder holds none."""
    return ConfigError(f"{env}: {folder}: no {file} that can be played; run the original's alfworld-download")


def read_game(env: str, path: Path) -> Any:
    """The JSON of a game's file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{env}: {path}: cannot be read ({error}); download it again") from error
