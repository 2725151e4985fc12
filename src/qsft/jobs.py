"""Commands side by side: each in a process of its own with a log, and one picture of how far they are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from qsft.data.text_files import make_folder
from qsft.errors import QSFTError

_POLL_SECONDS = 1.0
_LAST_BYTES = 500
_GRACE_SECONDS = 5
_RATE_SECONDS = 4 * 3600.0  # rows are minutes apart


@dataclass(frozen=True)
class Job:
    """One command.

    Attributes:
        name: how it is shown.
        command: program and arguments.
        log: file that gets all it prints, after what it printed before.
    """

    name: str
    command: tuple[str, ...]
    log: Path


def run_jobs(jobs: Sequence[Job], at_once: int, done: Callable[[], int], total: int, what: str) -> None:
    """Run commands, so many at once, and show on stderr how far they are.

    Each process gets as many threads as its share of the cores (``OMP_NUM_THREADS``, unless that is set). When one fails
    the others go on. An interrupt or SIGTERM ends all of them. To be called from the main thread.

    Args:
        jobs: in the order in which they are begun.
        at_once: at least 1.
        done: how many of ``total`` are done.
        total: of the bar.
        what: they are, for the bar.

    Raises:
        QSFTError: a command failed; says which, and where its log is.
    """
    threads = max(1, (os.cpu_count() or 1) // at_once)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    waiting, failed = deque(jobs), list[Job]()
    running: dict[Job, subprocess.Popen[bytes]] = {}
    console = Console(stderr=True)
    bar = Progress(
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        speed_estimate_period=_RATE_SECONDS,
    )
    task = bar.add_task(what, total=total, completed=done())
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # else the processes would go on alone
    try:
        with Live(bar, console=console, refresh_per_second=1) as live:
            while waiting or running:
                while waiting and len(running) < at_once:
                    job = waiting.popleft()
                    running[job] = _begun(job, environment)
                    console.print(f"{job.name}: begun; its log is {job.log}", highlight=False)
                time.sleep(_POLL_SECONDS)
                for job, process in list(running.items()):
                    if process.poll() is None:
                        continue
                    del running[job]
                    if process.returncode:
                        failed.append(job)
                    ended = f"failed: {last_line(job.log)}" if process.returncode else "done"
                    console.print(f"{job.name}: {ended}", highlight=False, markup=False)
                bar.update(task, completed=done())
                lines = (f"{job.name}: {last_line(job.log)}" for job in running)
                live.update(Group(bar, *(Text(line, no_wrap=True, overflow="ellipsis") for line in lines)))
    finally:
        _end(running.values())
        signal.signal(signal.SIGTERM, before)
    if failed:
        raise QSFTError(
            f"{len(failed)} of {len(jobs)} jobs failed, the first {failed[0].name}: {last_line(failed[0].log)}; its log is "
            f"{failed[0].log}. Mend it, and run the same command again: what is done stays."
        )


def last_line(log: Path) -> str:
    """The last that a log says, of a bar its last state."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LAST_BYTES))
        text = file.read().decode("utf-8", "replace")
    lines = [line.strip() for line in text.replace("\r", "\n").split("\n") if line.strip()]
    return lines[-1] if lines else "..."


def _begun(job: Job, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    make_folder(job.log)
    with job.log.open("ab") as log:
        return subprocess.Popen(job.command, stdout=log, stderr=subprocess.STDOUT, env=environment)


def _end(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    """Wait for those that an interrupt at the terminal has reached too, and end the others."""
    patience = time.monotonic() + _GRACE_SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, patience - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()
