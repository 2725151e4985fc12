"""Commands side by side, and `qsft reproduce --jobs` on studies and seeds that share a results file."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qsft.cli import main
from qsft.errors import QSFTError
from qsft.evaluation import ResultsFile
from qsft.jobs import Job, last_line, run_jobs
from tests.test_study import STUDY

RUNS = """runs:
  - {name: population, method: scripted}
  - {name: SFT, method: sft, data: all, decoding: supervised}
  - {name: prompted, method: react, data: all}
"""
MAZE = """
env: maze
collect: {train: {policy: population, episodes: 2}}
select: {episodes: 2, seed: 1}
test: {episodes: 3, seed: 2}
decoding: {}
runs:
  - {name: optimal, method: scripted}
"""


def python(program: str, *arguments: str | Path) -> tuple[str, ...]:
    return (sys.executable, "-c", program, *map(str, arguments))


def test_commands_run_at_the_same_time_and_no_more_than_allowed(tmp_path: Path) -> None:
    meet = """
import pathlib, sys, time
mine, other = map(pathlib.Path, sys.argv[1:])
mine.touch()
while not other.exists(): time.sleep(0.01)
print("met")
"""
    a, b = tmp_path / "a", tmp_path / "b"
    jobs = [
        Job("a", python(meet, a, b), tmp_path / "logs/a.log"),
        Job("b", python(meet, b, a), tmp_path / "logs/b.log"),
        Job("c", python("import os; print(os.environ['OMP_NUM_THREADS'])"), tmp_path / "logs/c.log"),
    ]
    run_jobs(jobs, 2, lambda: 0, 3, "rows")
    assert [job.log.read_text().strip() for job in jobs[:2]] == ["met", "met"]
    assert int(jobs[2].log.read_text()) >= 1


def test_one_that_fails_does_not_keep_the_others(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fail = Job("bad", python("import sys; print('a bar 50%\\rno such thing'); sys.exit(2)"), tmp_path / "bad.log")
    good = Job("good", python("print('fine')"), tmp_path / "good.log")
    with pytest.raises(QSFTError, match=r"1 of 2 jobs failed, the first bad: no such thing; its log is .*bad\.log"):
        run_jobs([fail, good], 1, lambda: 0, 2, "rows")
    assert last_line(good.log) == "fine"
    told = capfd.readouterr().err
    assert "bad: failed: no such thing" in told and "good: done" in told


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_all(tmp_path: Path, told: signal.Signals) -> None:
    program = """
import signal, sys
from pathlib import Path
from qsft.jobs import Job, run_jobs
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
wait = "import os, pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(600)"
jobs = [Job(n, (sys.executable, "-c", wait, f"{sys.argv[1]}/{n}.pid"), Path(sys.argv[1]) / f"{n}.log") for n in "ab"]
run_jobs(jobs, 2, lambda: 0, 2, "rows")
"""
    parent = subprocess.Popen(python(program, tmp_path), stderr=subprocess.PIPE)
    pids = [tmp_path / "a.pid", tmp_path / "b.pid"]
    until = time.monotonic() + 60
    while not all(path.exists() and path.read_text() for path in pids) and time.monotonic() < until:
        time.sleep(0.1)
    parent.send_signal(told)  # the parent alone, as `kill` does it; a terminal would tell all
    try:
        parent.communicate(timeout=60)
    finally:
        parent.kill()
    assert parent.returncode
    for path in pids:
        assert not Path(f"/proc/{path.read_text()}").exists()


def test_studies_and_seeds_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies/questions.yaml").write_text(STUDY.partition("runs:")[0] + RUNS)
    (tmp_path / "studies/maze.yaml").write_text(MAZE)
    command = ["reproduce", "studies", "--seeds", "0", "1", "--work", "work"]
    assert main([*command, "--jobs", "3"]) == 0
    rows = ResultsFile("studies/results.json").rows()
    found = sorted((row.env, row.config, row.seed) for row in rows)
    assert found == [
        ("maze", "optimal", 0),
        ("maze", "optimal", 1),
        ("twenty-questions", "SFT", 0),
        ("twenty-questions", "SFT", 1),
        ("twenty-questions", "population", 0),
        ("twenty-questions", "population", 1),
    ]
    starts = {
        json.loads(p.read_text())["settings"]["model"] for p in Path("work/questions").glob("seed-*/SFT/run.json")
    }
    assert starts == {"work/questions/pretrained"}
    assert "population" in Path("work/questions/seed-1.log").read_text()
    before = Path("studies/results.json").read_bytes()
    assert main([*command, "--jobs", "2"]) == 0, "nothing is left to do"
    assert Path("studies/results.json").read_bytes() == before
    alone = ["reproduce", "studies/maze.yaml", "--seeds", "0", "1", "--work", "other", "--results", "alone.json"]
    assert main(alone) == 0
    same = [(row.return_mean, row.command) for row in rows if row.env == "maze"]
    assert sorted(same) == sorted((row.return_mean, row.command) for row in ResultsFile("alone.json").rows())


def test_a_study_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "maze.yaml").write_text(MAZE.replace("seed: 2}", "seed: 2, env_options: {maze: nowhere}}"))
    assert main(["reproduce", "maze.yaml", "--seeds", "0", "--jobs", "2"]) == 2
    told = " ".join(capfd.readouterr().err.split())
    assert "1 of 1 jobs failed, the first maze, seed 0" in told and "maze 'nowhere' is unknown" in told
