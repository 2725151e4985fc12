"""From the log of a training stage to the points of a chart."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qsft.errors import DataError


def log_points(path: str | Path, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Points ``{"step", "name", "value"}`` of a JSONL log whose lines are ``{"step": 10, "loss": 1.2, ...}``.

    Args:
        path: the log.
        names: field of the log -> name of its line in the chart. Lines of the log without the field are passed over.

    Raises:
        DataError: the file cannot be read, a line is not such an object, or no line has any of the fields.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); give the log of a training stage") from error
    points = []
    for row, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            points += [{"step": entry["step"], "name": names[f], "value": entry[f]} for f in names if f in entry]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise DataError(f"{path}, row {row}: no object with a 'step' ({error!r}); remove the line") from error
    if not points:
        raise DataError(f"{path}: none of the fields {', '.join(names)} is in its {len(lines)} rows; name others")
    return points
