"""Stockfish where it is installed, and stand-ins for engines that fail."""

from __future__ import annotations

import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qsft.envs.chess.engine import EngineSettings
from qsft.errors import ConfigError

# Speaks UCI and gives the answers it was told to give, of which "die", "hang" and "mumble" are failures. The answers
# given so far are counted in a file, so that a second process goes on where the first one ended.
STAND_IN = """\
#!{python}
import sys, time
from pathlib import Path
answers, count = {answers!r}, Path({count!r})
for line in sys.stdin:
    command = line.split()[0]
    if command == "uci":
        print("id name stand-in\\nuciok", flush=True)
    elif command == "isready":
        print("readyok", flush=True)
    elif command == "go":
        number = len(count.read_text())
        count.write_text("." * (number + 1))
        answer = answers[number]
        if answer == "die":
            sys.exit(3)
        if answer == "hang":
            time.sleep(60)
        if answer != "mumble":
            print(f"info depth 1 seldepth 1 multipv 1 score cp 0 nodes 1 pv {{answer}}")
        print(f"bestmove {{answer}}", flush=True)
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> Callable[..., str]:
    """Makes an engine that gives these answers, one a question: UCI moves, "die", "hang" or "mumble"."""

    def make(*answers: str) -> str:
        path, count = tmp_path / "engine", tmp_path / "count"
        count.write_text("")
        path.write_text(STAND_IN.format(python=sys.executable, answers=answers, count=str(count)))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    return make


@pytest.fixture(scope="session")
def stockfish() -> str:
    """Path of Stockfish; the test is skipped where there is none."""
    try:
        return EngineSettings().find()
    except ConfigError:
        pytest.skip("Stockfish is not installed (Debian: apt-get install stockfish)")
