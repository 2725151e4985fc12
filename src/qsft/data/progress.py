"""A progress bar on stderr for work over the rows of a file."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

#: Seconds of work before a bar appears: what is over sooner shows nothing.
PATIENCE = 2.0
_REDRAW_SECONDS = 0.2


class RowProgress:
    """Shows how far through its input a loop is, rows a second and the time left.

    Args:
        description: what is being done, for example ``"Tokenising games.jsonl"``.
        fraction: tells how much of the input has been read, from 0 to 1; ``None`` where that is unknown.
    """

    def __init__(self, description: str, fraction: Callable[[], float] | None = None) -> None:
        self._description = description
        self._fraction = fraction
        self._rows = 0
        self._started = time.monotonic()
        self._next_redraw = self._started + PATIENCE
        self._bar: Progress | None = None

    def __enter__(self) -> RowProgress:
        return self

    def advance(self, rows: int = 1) -> None:
        """Note that this many more rows are done."""
        self._rows += rows
        now = time.monotonic()
        if now >= self._next_redraw:
            self._next_redraw = now + _REDRAW_SECONDS
            self._redraw(now)

    def _redraw(self, now: float) -> None:
        if self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(
                self._description, total=None if self._fraction is None else 1.0, rate="", start=True
            )
            self._bar.start()
        done = 0.0 if self._fraction is None else self._fraction()
        rate = self._rows / (now - self._started)
        self._bar.update(self._task, completed=done, rate=f"{self._rows:,} rows, {rate:,.0f}/s")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            if kind is None:
                self._redraw(time.monotonic())
            self._bar.stop()
