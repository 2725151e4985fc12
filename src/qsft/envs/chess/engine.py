"""A chess engine in a process of its own, spoken to over pipes.

Not python-chess' ``SimpleEngine``: for searches of a fraction of a millisecond its event loop costs several times the
search (measured: .86 against .32 ms a search, .5 against .02 ms of it in Python).
"""

from __future__ import annotations

import os
import re
import selectors
import shutil
import subprocess
import threading
import time
import weakref
from dataclasses import dataclass
from typing import IO, cast

from qsft.envs.base import EpisodeError
from qsft.errors import ConfigError

ENVIRONMENT_VARIABLE = "QSFT_STOCKFISH"
#: Where Debian installs it, which is not on everybody's PATH.
_DEBIAN = "/usr/games/stockfish"
#: How much longer a process may take to start than to answer.
_START_SECONDS = 10.0
_DAY = 86_400.0
_MOST_UNREAD = 10_000_000  # bytes that an engine says before it moves
#: Score of giving mate, less the moves to it, in centipawns: beyond all other scores.
MATE = 100_000
_LINE = re.compile(rb"multipv (\d+) score (cp|mate) (-?\d+) .* pv (\S+)")


class EngineError(EpisodeError):
    """The engine died, hung or answered nonsense in the middle of a game. It starts again when next asked."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A move, as UCI (``"e7e8q"``), and its score for the side to move in centipawns, mates around ``MATE``."""

    move: str
    score: int


@dataclass(frozen=True)
class EngineSettings:
    """Which engine, and how long to wait for it.

    Args:
        path: of its program; ``None`` for that in ``$QSFT_STOCKFISH``, else ``stockfish`` on the PATH, else Debian's.
        timeout: seconds after which an engine that does not answer is given up.

    Raises:
        ConfigError: a path that is none, a timeout that is not positive.
    """

    path: str | None = None
    timeout: float = 30.0

    def __post_init__(self) -> None:
        if not (self.path is None or isinstance(self.path, str | os.PathLike)):
            raise ConfigError(f"chess: engine={self.path!r:.60} is no path of a program")
        if isinstance(self.timeout, bool) or not isinstance(self.timeout, int | float) or not 0 < self.timeout <= _DAY:
            raise ConfigError(
                f"chess: engine_timeout={self.timeout!r:.60} is no number of seconds above 0, at most a day"
            )

    def find(self) -> str:
        """Path of the engine's program.

        Raises:
            ConfigError: there is none.
        """
        given = self.path or os.environ.get(ENVIRONMENT_VARIABLE)
        found = shutil.which(given) if given else shutil.which("stockfish") or shutil.which(_DEBIAN)
        if found is None:
            what = f"{given!r} is no program that can be run" if given else "Stockfish is not installed"
            raise ConfigError(
                f"chess: {what}; install it (Debian: apt-get install stockfish), "
                f"or give its path as option engine or in ${ENVIRONMENT_VARIABLE}"
            )
        return found

    def shared(self, **options: str | int) -> Engine:
        """The engine with these UCI options that this thread already uses, or a new one.

        It runs for as long as somebody holds it: games by the hundred need not have a process each.

        Raises:
            ConfigError: there is no engine.
        """
        key = (self.find(), float(self.timeout), *sorted(options.items()))
        engines = _threads.__dict__.setdefault("engines", weakref.WeakValueDictionary())
        engine = engines.get(key)
        if engine is None:
            engines[key] = engine = Engine(self.find(), self.timeout, **options)
        return engine


_threads = threading.local()


class Engine:
    """A UCI engine. Its process starts when it is needed, and again after it died or hung.

    Args:
        path: of its program.
        timeout: seconds to wait for an answer.
        options: UCI options, such as ``UCI_Elo=1350``. One thread and the smallest hash table are set anyway.
    """

    def __init__(self, path: str, timeout: float = 30.0, **options: str | int) -> None:
        self.path = path
        self.timeout = timeout
        self.options = {"Threads": 1, "Hash": 1, **options}
        self._lock = threading.Lock()
        self._started = False
        self._process: subprocess.Popen[bytes] | None = None
        self._selector: selectors.BaseSelector
        self._unread = b""

    def start(self) -> None:
        """Starts the process where none is running.

        Raises:
            ConfigError: it is no UCI engine.
            EngineError: it was one before, and does not start now.
        """
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._start()

    def candidates(self, fen: str, depth: int, lines: int) -> list[Candidate]:
        """The best ``lines`` moves (fewer where there are fewer) in a position, best first.

        The engine forgets all that it knew before, so that the answer depends on nothing but the arguments (and on the
        engine's version).

        Raises:
            EngineError: it died or did not answer in time.
        """
        commands = f"ucinewgame\nsetoption name MultiPV value {lines}\nposition fen {fen}\ngo depth {depth}\n"
        found: dict[int, Candidate] = {}
        for line in self._ask(commands):
            match = _LINE.search(line)
            if match:
                rank, kind, number, move = match.groups()
                found[int(rank)] = Candidate(move.decode(), _score(kind, int(number)))
        if not found:
            raise EngineError(f"engine {self.path} gave no move for {fen}; is it Stockfish?")
        return [found[rank] for rank in sorted(found)]

    def best_move(self, fen: str, seconds: float) -> str:
        """The move (UCI) that the engine plays after so many seconds; what it knew before it may use.

        Raises:
            EngineError: it died or did not answer in time.
        """
        answer = self._ask(f"position fen {fen}\ngo movetime {round(1000 * seconds)}\n", seconds)[-1]
        words = answer.decode("utf-8", "replace").split()
        if len(words) < 2:
            raise EngineError(f"engine {self.path} gave no move for {fen}; is it Stockfish?")
        return words[1]

    def close(self) -> None:
        """Ends the process and waits for its end. The engine may be asked again: it starts anew."""
        with self._lock:
            self._stop()

    def _ask(self, commands: str, patience: float = 0.0) -> list[bytes]:
        """The lines that the engine answers, up to its ``bestmove``."""
        with self._lock:
            if self._process is None:
                self._start()
            return self._talk(commands, b"bestmove ", patience)

    def _talk(self, commands: str, end: bytes, patience: float = 0.0) -> list[bytes]:
        process = cast("subprocess.Popen[bytes]", self._process)
        deadline = time.monotonic() + self.timeout + patience
        lines: list[bytes] = []
        try:
            cast("IO[bytes]", process.stdin).write(commands.encode())
            said = 0
            while not (lines and lines[-1].startswith(end)):
                lines.append(self._read_line(deadline))
                said += len(lines[-1])
                if said > _MOST_UNREAD or time.monotonic() > deadline:
                    raise TimeoutError
        except (OSError, EOFError) as error:
            self._stop()
            what = f"died (exit status {process.returncode})"
            if isinstance(error, TimeoutError):
                what = f"did not answer within {self.timeout + patience:g} s"
            raise EngineError(f"engine {self.path} {what}") from None
        except BaseException:
            # Interrupted half-way: its answer would be taken for that to the next question.
            self._stop()
            raise
        return lines

    def _read_line(self, deadline: float) -> bytes:
        while b"\n" not in self._unread:
            if not self._selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError
            chunk = os.read(self._output, 1 << 16)
            if not chunk:
                raise EOFError
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _start(self) -> None:
        self._stop()
        try:
            process = subprocess.Popen(
                [self.path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                start_new_session=True,  # so that Ctrl-C is for us alone; the engine ends when its input does
            )
        except OSError as error:
            raise ConfigError(f"chess: cannot run the engine {self.path} ({error.strerror}); check its path") from error
        self._output = cast("IO[bytes]", process.stdout).fileno()
        self._unread = b""
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._output, selectors.EVENT_READ)
        self._process = process
        self._end = weakref.finalize(self, _end, process, self._selector)
        options = "".join(f"setoption name {name} value {value}\n" for name, value in self.options.items())
        try:
            self._talk("uci\n", b"uciok", _START_SECONDS)
            self._talk(f"{options}isready\n", b"readyok", _START_SECONDS)
        except EngineError as error:
            if self._started:  # a program that spoke UCI before
                raise
            raise ConfigError(f"chess: {self.path} is no UCI engine such as Stockfish ({error}); check it") from error
        self._started = True

    def _stop(self) -> None:
        if self._process is not None:
            self._end()
            self._process = None


def _end(process: subprocess.Popen[bytes], selector: selectors.BaseSelector) -> None:
    selector.close()
    process.kill()
    for pipe in (process.stdin, process.stdout):
        cast("IO[bytes]", pipe).close()
    process.wait()


def _score(kind: bytes, number: int) -> int:
    if kind == b"cp":
        return number
    return MATE - number if number > 0 else -MATE - number
