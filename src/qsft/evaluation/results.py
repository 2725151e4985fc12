"""What an evaluation found: the row of one evaluation, and the file of all finished runs."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from qsft.data.text_files import make_folder, write_text
from qsft.data.trajectory import Trajectory
from qsft.errors import DataError
from qsft.evaluation.rollout import failed
from qsft.evaluation.statistics import Estimate, mean_interval, success_interval

Interval = tuple[float, float]
#: What makes two rows the same run: environment, method, config (as canonical JSON), seed.
RowKey = tuple[str, str, str, int]


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One finished run, evaluated.

    Attributes:
        env: environment.
        method: what was trained or played.
        seed: the run's seed.
        episodes: how many were scored (those that an exception ended are not among them).
        return_mean, return_ci95: mean undiscounted return and its 95% interval ``(low, high)``.
        success_rate, success_ci95: share of successes in [0, 1] and its 95% interval.
        config: the settings, or the name of the file that holds them.
        command: what makes this row again.
        date: ISO 8601.
        seconds: wall time of the run.
        extra: anything else worth keeping. ``extra["episode_seed"]`` says on which episodes it was evaluated where
            that is not ``seed``.
    """

    env: str
    method: str
    seed: int
    episodes: int
    return_mean: float
    return_ci95: Interval
    success_rate: float
    success_ci95: Interval
    config: str | dict[str, Any]
    command: str
    date: str
    seconds: float
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> RowKey:
        return row_key(self.env, self.method, self.config, self.seed)

    @property
    def return_estimate(self) -> Estimate:
        return Estimate(self.return_mean, *self.return_ci95, n=self.episodes)

    @property
    def success_estimate(self) -> Estimate:
        return Estimate(self.success_rate, *self.success_ci95, n=self.episodes)

    @property
    def episode_seed(self) -> int:
        """The seed that fixed the episodes: rows that share it played the same ones."""
        return int(self.extra.get("episode_seed", self.seed))

    def to_json(self) -> dict[str, Any]:
        """A dict of JSON values. Ends of an interval that has no bound are ``None``."""
        row = {f.name: getattr(self, f.name) for f in fields(self)}
        row["return_ci95"], row["success_ci95"] = _interval_json(self.return_ci95), _interval_json(self.success_ci95)
        if not row["extra"]:
            del row["extra"]
        return row

    @classmethod
    def from_json(cls, row: Any, where: str = "row") -> ResultRow:
        """Checks a row and makes it a :class:`ResultRow`.

        Raises:
            DataError: a field is missing, unknown, of another type, or impossible; ``where`` begins the message.
        """
        if not isinstance(row, dict):
            raise DataError(f"{where}: is a {type(row).__name__}, not an object: remove or mend that line")
        names = [f.name for f in fields(cls)]
        for name in [n for n in names if n not in row and n != "extra"]:
            raise DataError(f"{where}: field '{name}' is missing: add it or remove the row")
        for name in [n for n in row if n not in names]:
            raise DataError(f"{where}: field '{name}' is unknown: move it into 'extra'")
        values = dict(row)
        for name, check in _CHECKS.items():
            if name in values and (problem := check(values[name])):
                raise DataError(f"{where}: field '{name}' is {values[name]!r:.80}: {problem}")
        for name, mean in (("return_ci95", "return_mean"), ("success_ci95", "success_rate")):
            low, high = values[name]
            values[name] = (-math.inf if low is None else float(low), math.inf if high is None else float(high))
            # A mean may sit on an end of its interval, where rounding can push it over.
            if not values[name][0] - 1e-9 <= values[mean] <= values[name][1] + 1e-9:
                raise DataError(f"{where}: field '{name}' is {[low, high]}: must contain {mean} {values[mean]}")
        return cls(**values)


def row_key(env: str, method: str, config: str | Mapping[str, Any], seed: int) -> RowKey:
    """Key of a run before it has finished; a config compares by its content, not by the order of its fields."""
    return env, method, json.dumps(config, sort_keys=True, ensure_ascii=False), seed


def evaluation_row(trajectories: Sequence[Trajectory], *, seconds: float) -> dict[str, Any]:
    """Summary of one :func:`rollout`, ready for JSON.

    Holds ``env, policy, episodes, seed, return_mean, return_ci95, success_rate, success_ci95, turns_mean, errors,
    seconds``. Episodes that an exception ended are counted in ``errors`` and in nothing else.

    Args:
        trajectories: all episodes of one rollout.
        seconds: how long it took.

    Raises:
        DataError: no episode is left to score, one is unfinished, or they come from more than one environment, policy
            or seed.
    """
    scored = [t for t in trajectories if "error" not in t.metadata]
    errors = failed(trajectories)
    if not scored:
        reason = f", the first with {errors[0].metadata['error']}" if errors else ""
        raise DataError(f"no episode to score: {len(errors)} of {len(trajectories)} failed{reason}")
    same: dict[str, Any] = {}
    for name in ("env", "policy", "seed"):
        values = {t.metadata.get(name) for t in trajectories}
        if len(values) > 1:
            raise DataError(f"episodes of one evaluation differ in '{name}': {sorted(map(str, values))[:4]}")
        same[name] = values.pop()
    for number, trajectory in enumerate(scored, 1):
        if trajectory.ended is None or "success" not in trajectory.metadata:
            raise DataError(f"episode {number} of {len(scored)} is not finished: score episodes that have ended")
    returns = mean_interval([t.total_return for t in scored])
    success = success_interval(sum(t.metadata["success"] for t in scored), len(scored))
    return {
        "env": same["env"],
        "policy": same["policy"],
        "episodes": len(scored),
        "seed": same["seed"],
        "return_mean": returns.mean,
        "return_ci95": _interval_json((returns.low, returns.high)),
        "success_rate": success.mean,
        "success_ci95": _interval_json((success.low, success.high)),
        "turns_mean": sum(sum(1 for _ in t.agent_turns) for t in scored) / len(scored),
        "errors": len(errors),
        "seconds": round(seconds, 3),
    }


def result_row(
    evaluation: Mapping[str, Any],
    *,
    method: str,
    seed: int,
    config: str | dict[str, Any],
    command: str,
    seconds: float,
    extra: Mapping[str, Any] | None = None,
) -> ResultRow:
    """Row of ``results.json`` for a finished run and the evaluation of it; dated now.

    Args:
        evaluation: from :func:`evaluation_row`. Its policy, errors and (where it differs from ``seed``) its seed go to
            ``extra``.
        seconds: wall time of the whole run, training included.
    """
    kept: dict[str, Any] = {"policy": evaluation["policy"], "errors": evaluation["errors"]}
    if evaluation["seed"] != seed:
        kept["episode_seed"] = evaluation["seed"]
    shared = ("env", "episodes", "return_mean", "return_ci95", "success_rate", "success_ci95")
    row = {
        **{name: evaluation[name] for name in shared},
        "method": method,
        "seed": seed,
        "config": config,
        "command": command,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        "extra": {**kept, **(extra or {})},
    }
    return ResultRow.from_json(row, f"result of {method}")


def paired_returns(
    first: Sequence[Trajectory], second: Sequence[Trajectory]
) -> tuple[list[float], list[float], list[int]]:
    """Returns of two policies on the episodes that both finished, with the numbers of these episodes.

    Raises:
        DataError: the trajectories are not of the same environment and seed, or have no finished episode in common.
    """
    origins = {(t.metadata.get("env"), t.metadata.get("seed")) for t in [*first, *second]}
    if len(origins) > 1:
        raise DataError(f"episodes to pair come from different environments or seeds: {sorted(map(str, origins))[:4]}")
    by_episode = [{t.metadata["episode"]: t for t in side if "error" not in t.metadata} for side in (first, second)]
    common = sorted(by_episode[0].keys() & by_episode[1].keys())
    if not common:
        raise DataError("no episode was finished by both policies: evaluate both with the same seed")
    left, right = ([side[episode].total_return for episode in common] for side in by_episode)
    return left, right, common


class ResultsFile:
    """A JSON list of :class:`ResultRow`, one row a line so that differences read well.

    A missing or empty file has no rows.

    Args:
        path: the file; every method reads it anew, because another process may have added to it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def rows(self) -> list[ResultRow]:
        """All rows, in the order in which they were added.

        Raises:
            DataError: the file is not a JSON list of valid rows, or two rows have one key.
        """
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self.path}: cannot be read ({error}); restore it") from error
        if not text:
            return []
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"{self.path}, line {error.lineno}: not JSON ({error.msg}): mend or remove it") from error
        if not isinstance(content, list):
            raise DataError(f"{self.path}: holds a {type(content).__name__}, not a list of rows: restore it")
        rows: dict[RowKey, ResultRow] = {}
        for number, item in enumerate(content, 1):
            row = ResultRow.from_json(item, f"{self.path}, row {number}")
            if row.key in rows:
                raise DataError(f"{self.path}, row {number}: {_describe(row)} is there twice: remove one")
            rows[row.key] = row
        return list(rows.values())

    def has(self, key: RowKey) -> bool:
        """Whether a run is finished: see :func:`row_key`."""
        return any(row.key == key for row in self.rows())

    def add(self, row: ResultRow) -> None:
        """Adds a row at the end. The file is replaced at once and whole; processes that add together wait in turn.

        Raises:
            DataError: the run is already there, the file is invalid, or it cannot be written.
        """
        ResultRow.from_json(row.to_json(), f"row of {row.method}")
        with self._locked():
            rows = self.rows()
            if any(other.key == row.key for other in rows):
                raise DataError(f"{self.path}: already holds {_describe(row)}: remove that line to run it again")
            write_text(self.path, _dump([*rows, row]))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Holds an exclusive lock on the file that is at ``path`` now. The system frees it should the process die."""
        import fcntl  # POSIX only; reading results works everywhere

        make_folder(self.path)
        while True:
            try:
                # There must be something to lock: a file that is new stays empty until its first row is in place.
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                raise DataError(f"{self.path}: cannot be written ({error.strerror}); check its rights") from error
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                # Whoever held the lock before may have put a new file in place: then this lock guards nothing.
                if self.path.exists() and os.path.samestat(os.fstat(descriptor), os.stat(self.path)):
                    yield
                    return
            finally:
                os.close(descriptor)


def _dump(rows: Sequence[ResultRow]) -> str:
    try:
        lines = [json.dumps(row.to_json(), ensure_ascii=False, allow_nan=False) for row in rows]
    except (TypeError, ValueError) as error:
        raise DataError(f"config or extra of a row is not JSON ({error}): keep texts and finite numbers") from error
    return "[\n" + ",\n".join(lines) + ("\n" if lines else "") + "]\n"


def _describe(row: ResultRow) -> str:
    return f"env {row.env}, method {row.method}, seed {row.seed}, config {json.dumps(row.config)[:60]}"


def _interval_json(interval: Interval) -> list[float | None]:
    return [end if math.isfinite(end) else None for end in interval]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) and value else "must be a text that is not empty"


def _interval(value: Any) -> str | None:
    ends = value if isinstance(value, (list, tuple)) and len(value) == 2 else [""]
    return None if all(end is None or _is_number(end) for end in ends) else "must be [low, high], null where unbounded"


def _share(value: Any) -> str | None:
    return None if _is_number(value) and 0 <= value <= 1 else "must be a number from 0 to 1"


def _date(value: Any) -> str | None:
    try:
        datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return "must be a date and time as in 2026-01-31T12:00:00+00:00"
    return None


_CHECKS = {
    "env": _text,
    "method": _text,
    "seed": lambda v: None if _is_whole(v) else "must be a whole number",
    "episodes": lambda v: None if _is_whole(v) and v >= 1 else "must be a whole number of at least 1",
    "return_mean": lambda v: None if _is_number(v) else "must be a finite number",
    "return_ci95": _interval,
    "success_rate": _share,
    "success_ci95": _interval,
    "config": lambda v: None if isinstance(v, dict) or (isinstance(v, str) and v) else "must be a text or an object",
    "command": _text,
    "date": _date,
    "seconds": lambda v: None if _is_number(v) and v >= 0 else "must be a number of at least 0",
    "extra": lambda v: None if isinstance(v, dict) else "must be an object",
}
