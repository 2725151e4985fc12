"""Collections: reproducible, resumable to the byte, and fast enough."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qsft.data.files import load_trajectories, only_writer
from qsft.data.trajectory import Trajectory
from qsft.envs import make_policy
from qsft.envs.base import EpisodeError
from qsft.envs.collect import Collection, RolloutPlayer, collect, collect_to_file
from qsft.envs.gather import gather
from qsft.errors import ConfigError, DataError, QSFTError
from tests.evaluation.toys import Counting, Guess

WORDS = ["crane", "brace", "trace", "grace", "place", "about", "eerie"]


class Guesser:
    """A policy that is none of Wordle's own, so that it is played turn by turn; it draws from its own generator."""

    name = "guesser"

    def __init__(self) -> None:
        self.calls = 0
        self.fails_at = -1
        self.seed(0)

    def seed(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def act(self, histories: Sequence[Trajectory]) -> list[str]:
        self.calls += 1
        if self.calls == self.fails_at:
            raise RuntimeError("the machine fell asleep")
        return [" ".join(WORDS[i]) + "\n" for i in self.rng.integers(len(WORDS), size=len(histories))]


def small(episodes: int, seed: int = 0, policy: object = None) -> list[Trajectory]:
    return list(collect("wordle", policy or Guesser(), episodes, seed, {"words": WORDS}))


@pytest.mark.parametrize("policy", ["mixture", None], ids=["fast", "turn by turn"])
def test_episodes_depend_on_seed_and_number_alone(policy: str | None) -> None:
    def games(episodes: int, seed: int = 0) -> list[Trajectory]:
        return small(episodes, seed, policy or Guesser())

    size = Collection("wordle", policy or Guesser(), 0, {"words": WORDS}).block_size
    n = 2 * size + 3
    first = games(n)
    assert len(first) == n
    assert games(n) == first
    assert games(5) == first[:5], "the number asked for changes nothing"
    assert games(n, seed=1) != first
    assert len({json.dumps([turn.text for turn in game.turns]) for game in first[: 3 * 16]}) > 20
    collection = Collection("wordle", policy or Guesser(), 0, {"words": WORDS})
    assert collection.block(1) == first[size : 2 * size], "any block can come first"
    assert collection.block(0) == first[:size]
    zero, one = collection.block(0), collection.block(1)
    assert [game.turns[1].text for game in zero] != [game.turns[1].text for game in one], "the policy starts otherwise"
    assert [game.metadata["secret"] for game in zero] != [game.metadata["secret"] for game in one]


@pytest.mark.parametrize("policy", ["random", None], ids=["fast", "turn by turn"])
def test_trajectories(policy: str | None) -> None:
    games = small(40, 7, policy or Guesser())
    assert len({game.metadata["secret"] for game in games}) == len(WORDS)
    for number, game in enumerate(games):
        assert list(game.metadata) == ["env", "policy", "seed", "env_options", "episode", "secret", "success"]
        assert game.metadata["env"] == "wordle"
        assert game.metadata["policy"] == (policy or "guesser")
        assert (game.metadata["seed"], game.metadata["episode"]) == (7, number)
        assert game.metadata["success"] == (game.turns[-1].text == "g g g g g\n")
        assert game.ended == "terminated"
        assert game.turns[0].text == "Wordle:\n"
        assert [turn.role for turn in game.turns] == ["user", "assistant"] * (len(game.turns) // 2) + ["user"]
        assert all((turn.reward is None) == (turn.role == "user") for turn in game.turns)


def test_wordle_policies_use_the_fast_player_and_others_do_not() -> None:
    assert Collection("wordle", "mixture").block_size > RolloutPlayer.size
    assert Collection("wordle", make_policy("wordle", "mixture", q=0.5)).block_size > RolloutPlayer.size
    assert Collection("wordle", Guesser()).block_size == RolloutPlayer.size


def test_iterator_is_lazy() -> None:
    start = time.perf_counter()
    assert len(list(islice(collect("wordle", "mixture", 10**12), 10))) == 10
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("wordle", "mixture", 0), "less than 1"),
        (("wordle", "mixture", 5, -1), "negative"),
        (("wordle", "best", 5), "no scripted policy 'best'"),
        (("chest", "best", 5), "unknown environment"),
        (("wordle", "mixture", 5, 0, {"colour": 1}), "no option 'colour'"),
    ],
)
def test_bad_arguments_fail_at_once(arguments: tuple, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        collect(*arguments)
    with pytest.raises(ConfigError, match=message):
        collect_to_file(*arguments[:3], tmp_path / "games.jsonl", *arguments[3:])
    assert not list(tmp_path.iterdir())


# Two blocks and a bit: the fast player has blocks of 1024, the other of 16.
JOBS = {"fast": ("mixture", 1100), "turn by turn": (None, 40)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    found = {}
    for job in JOBS:
        collect_job(job, folder / f"{job}.jsonl")
        found[job] = (folder / f"{job}.jsonl").read_bytes()
    return found


def collect_job(job: str, out: Path) -> None:
    policy, episodes = JOBS[job]
    collect_to_file("wordle", policy or Guesser(), episodes, out, 3, {"words": WORDS})


@pytest.mark.parametrize("job", JOBS)
def test_file_holds_what_collect_yields(job: str, whole: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "games.jsonl"
    out.write_bytes(whole[job])
    policy, episodes = JOBS[job]
    assert list(load_trajectories(out)) == small(episodes, 3, policy or Guesser())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(job=st.sampled_from(sorted(JOBS)), share=st.floats(0, 1), whole_rows=st.booleans())
def test_killed_at_any_byte_it_continues_to_the_same_file(
    whole: dict[str, bytes], tmp_path: Path, job: str, share: float, whole_rows: bool
) -> None:
    expected = whole[job]
    cut = expected[: int(share * len(expected))]
    if whole_rows:
        cut = cut[: cut.rfind(b"\n") + 1]
    out, partial = tmp_path / "games.jsonl", tmp_path / "games.partial.jsonl"
    out.unlink(missing_ok=True)
    partial.write_bytes(cut)
    collect_job(job, out)
    assert out.read_bytes() == expected
    assert [path.name for path in tmp_path.iterdir()] == ["games.jsonl"]


def test_a_complete_partial_file_only_needs_its_name(whole: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "games.partial.jsonl").write_bytes(whole["fast"])
    collect_job("fast", tmp_path / "games.jsonl")
    assert (tmp_path / "games.jsonl").read_bytes() == whole["fast"]


def test_a_partial_file_with_more_episodes_is_cut(whole: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "games.partial.jsonl").write_bytes(whole["fast"])
    collect_to_file("wordle", "mixture", 700, tmp_path / "games.jsonl", 3, {"words": WORDS})
    assert (tmp_path / "games.jsonl").read_bytes() == b"".join(whole["fast"].splitlines(keepends=True)[:700])


def test_a_policy_that_fails_leaves_what_can_be_continued(whole: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "games.jsonl"
    policy = Guesser()
    policy.fails_at = 9  # in the second block: a game lasts at most six turns
    with pytest.raises(RuntimeError, match="asleep"):
        collect_to_file("wordle", policy, 40, out, 3, {"words": WORDS})
    assert not out.exists()
    assert 0 < (tmp_path / "games.partial.jsonl").stat().st_size < len(whole["turn by turn"])
    collect_job("turn by turn", out)
    assert out.read_bytes() == whole["turn by turn"]


@pytest.mark.parametrize(
    ("seed", "options", "policy"),
    [
        (4, {"words": WORDS}, "mixture"),
        (3, {"words": WORDS, "observation": "tiles"}, "mixture"),
        (3, {"words": WORDS[:-1]}, "mixture"),
        (3, {"words": WORDS}, "random"),
        (3, {"words": WORDS}, "guesser"),
    ],
)
def test_a_partial_file_of_another_collection_is_left_alone(
    seed: int, options: dict, policy: str, whole: dict[str, bytes], tmp_path: Path
) -> None:
    out, partial = tmp_path / "games.jsonl", tmp_path / "games.partial.jsonl"
    torn = whole["fast"][:-20]
    partial.write_bytes(torn)
    with pytest.raises(DataError, match=r"games\.partial\.jsonl: row 1: not what this command") as caught:
        collect_to_file("wordle", Guesser() if policy == "guesser" else policy, 1100, out, seed, options)
    assert "\n" not in str(caught.value)
    assert partial.read_bytes() == torn
    assert not out.exists()


def test_pictures_of_other_options_are_not_written_over(tmp_path: Path) -> None:
    out, partial, pictures = (tmp_path / name for name in ("games.jsonl", "games.partial.jsonl", "games-images"))
    options = {"max_steps": 2, "image_size": 64}
    collect_to_file("alfworld-image", "population", 3, out, 0, options)
    whole = out.read_bytes()
    before = {path.name: path.read_bytes() for path in pictures.iterdir()}
    out.unlink()
    partial.write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    with pytest.raises(DataError, match=r"row 1: not what this command"):
        collect_to_file("alfworld-image", "population", 3, out, 0, options | {"labels": False})
    assert {path.name: path.read_bytes() for path in pictures.iterdir()} == before
    collect_to_file("alfworld-image", "population", 3, out, 0, options)
    assert out.read_bytes() == whole


def test_an_option_is_noted_as_it_was_given_or_in_short() -> None:
    (game,) = collect("wordle", "mixture", 1, 0, {"observation": "tiles"})
    assert game.metadata["env_options"] == {"observation": "tiles"}
    (game,) = collect("wordle", "mixture", 1, 0, {"words": [*WORDS, *(f"abcd{letter}" for letter in "xyzuvwrstq")]})
    assert game.metadata["env_options"]["words"].startswith("sha256 ")
    (game,) = collect("twenty-questions", "random", 1, 0, {"nouns": lambda words: words})
    assert isinstance(game.metadata["env_options"]["nouns"], str)
    assert next(collect("wordle", "mixture", 1)).metadata["env_options"] == {}


def test_a_partial_file_of_rubbish_is_left_alone(tmp_path: Path) -> None:
    partial = tmp_path / "games.partial.jsonl"
    partial.write_bytes(b"not json\n\xff\xfe\n")
    with pytest.raises(DataError, match="row 1: not what"):
        collect_job("fast", tmp_path / "games.jsonl")
    assert partial.read_bytes() == b"not json\n\xff\xfe\n"


def test_a_spoilt_row_in_the_middle_is_found(whole: dict[str, bytes], tmp_path: Path) -> None:
    lines = whole["turn by turn"].splitlines(keepends=True)
    for spoilt in (b"rubbish\n", lines[5], b""):
        partial = tmp_path / "games.partial.jsonl"
        partial.write_bytes(b"".join([*lines[:4], spoilt, *lines[5:20]]))
        with pytest.raises(DataError, match=r"games\.partial\.jsonl: row 5: not what this command"):
            collect_job("turn by turn", tmp_path / "games.jsonl")


def test_two_do_not_write_one_file(tmp_path: Path) -> None:
    """The second would go on with what the first has gathered so far, and both would take its name."""
    out = tmp_path / "games.jsonl"
    with only_writer(tmp_path / "games.partial.jsonl"):
        for job in (
            lambda: collect_job("fast", out),
            lambda: gather("wordle", make_policy("wordle", "mixture"), 2, out),
        ):
            with pytest.raises(DataError, match=r"games\.partial\.jsonl: another process is writing it"):
                job()
    collect_job("fast", out)
    assert [path.name for path in tmp_path.iterdir()] == ["games.jsonl"]


class Breaking(Guess):
    """Breaks in some episodes, by the secret; counts those that are made."""

    name = "breaking"
    breaks: ClassVar[set[int]] = {3}
    made = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).made += 1

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        if self.secret in self.breaks:
            raise EpisodeError("the engine died")
        return super().step(action)


NAME = f"{__name__}:Breaking"


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_an_episode_that_breaks_is_left_out_and_the_others_are_the_same(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Breaking, "breaks", set())
    every = list(collect(NAME, Counting(), 40, 3))
    monkeypatch.setattr(Breaking, "breaks", {3})
    kept = [game for game in every if game.metadata["secret"] != 3]
    assert 25 < len(kept) < 40
    out = tmp_path / f"games{suffix}"
    assert collect_to_file(NAME, Counting(), 40, out, 3) == len(kept)
    assert list(load_trajectories(out)) == kept == list(collect(NAME, Counting(), 40, 3))
    assert "failed and is left out: EpisodeError: the engine died" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_going_on_after_episodes_that_broke(tmp_path: Path) -> None:
    out = tmp_path / "games.jsonl"
    policy = Counting()
    collect_to_file(NAME, policy, 40, out, 3)
    whole = out.read_bytes()
    partial = tmp_path / "games.partial.jsonl"
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr("qsft.data.files.write_trajectories", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            collect_to_file(NAME, policy, 40, tmp_path / "again.jsonl", 3)
    gathered = (tmp_path / "again.partial.jsonl").read_bytes()
    assert gathered.count(b"\n") == 40
    out.unlink()
    for end in (len(gathered), len(gathered) // 2, 10):
        partial.write_bytes(gathered[:end])
        assert collect_to_file(NAME, policy, 40, out, 3) == whole.count(b"\n")
        assert out.read_bytes() == whole
        out.unlink()


def test_when_all_break_it_stops_and_goes_on_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "games.jsonl"
    monkeypatch.setattr(Breaking, "breaks", set(range(1, 7)))
    with pytest.raises(
        QSFTError,
        match=r"all of 16 episodes failed, the first with EpisodeError: the engine died \(0 of 40 episodes are kept in .*"
        r"games.partial.jsonl; repeat to go on\)",
    ):
        collect_to_file(NAME, Counting(), 40, out, 3)
    assert not out.exists()
    monkeypatch.setattr(Breaking, "breaks", set())
    assert collect_to_file(NAME, Counting(), 40, out, 3) == 40


def test_going_on_behind_an_episode_that_broke_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is mended; what is played again to compare must be one that was played to its end."""
    out, partial = tmp_path / "games.jsonl", tmp_path / "games.partial.jsonl"
    monkeypatch.setattr(Breaking, "breaks", set())
    whole = list(collect(NAME, Counting(), 40, 3))
    last = whole[15].metadata["secret"]  # of the first block
    lost = sum(game.metadata["secret"] == last for game in whole[:16])
    monkeypatch.setattr(Breaking, "breaks", {last})
    with monkeypatch.context() as patch:
        patch.setattr("qsft.data.files.write_trajectories", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            collect_to_file(NAME, Counting(), 16, out, 3)
    assert "error" in json.loads(partial.read_text().splitlines()[15])["metadata"]
    monkeypatch.setattr(Breaking, "breaks", set())
    assert collect_to_file(NAME, Counting(), 40, out, 3) == 40 - lost
    kept = [game for i, game in enumerate(whole) if i >= 16 or game.metadata["secret"] != last]
    assert list(load_trajectories(out)) == kept


def test_what_fails_when_it_is_played_again_is_told_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, partial = tmp_path / "games.jsonl", tmp_path / "games.partial.jsonl"
    monkeypatch.setattr(Breaking, "breaks", set())
    collect_to_file(NAME, Counting(), 16, out, 3)
    out.rename(partial)
    gathered = partial.read_bytes()
    monkeypatch.setattr(Breaking, "breaks", {json.loads(gathered.splitlines()[15])["metadata"]["secret"]})
    with pytest.raises(QSFTError, match=r"episode 15, which is played again .*: EpisodeError: the engine died; mend"):
        collect_to_file(NAME, Counting(), 40, out, 3)
    assert partial.read_bytes() == gathered


def test_parquet(tmp_path: Path) -> None:
    collect_job("fast", tmp_path / "games.jsonl")
    collect_job("fast", tmp_path / "games.parquet")
    assert list(load_trajectories(tmp_path / "games.parquet")) == list(load_trajectories(tmp_path / "games.jsonl"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["games.jsonl", "games.parquet"]


def test_a_file_is_never_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "games.jsonl"
    out.write_text("mine")
    with pytest.raises(DataError, match=r"games\.jsonl: exists already"):
        collect_job("fast", out)
    assert out.read_text() == "mine"


@pytest.mark.parametrize("name", ["games.csv", "games", "nowhere/games.jsonl"])
def test_bad_places(name: str, tmp_path: Path) -> None:
    with pytest.raises(QSFTError, match="games"):
        collect_job("fast", tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_real_kill(tmp_path: Path) -> None:
    out, partial = tmp_path / "games.jsonl", tmp_path / "games.partial.jsonl"
    program = """
import sys
from qsft.envs.collect import collect_to_file
collect_to_file("wordle", "mixture", 10**7, sys.argv[1])
"""
    process = subprocess.Popen([sys.executable, "-c", program, str(out)])
    try:
        deadline = time.monotonic() + 60
        while not (partial.exists() and partial.stat().st_size > 1_000_000) and time.monotonic() < deadline:
            time.sleep(0.002)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    rows = partial.read_bytes().count(b"\n")
    assert rows > 1000
    collect_to_file("wordle", "mixture", rows + 500, out)
    collect_to_file("wordle", "mixture", rows + 500, tmp_path / "other.jsonl")
    assert out.read_bytes() == (tmp_path / "other.jsonl").read_bytes()


def test_speed() -> None:
    """At least 20,000 games a second before writing; measured some seven times that, so that a busy machine passes."""
    collection = Collection("wordle", "mixture")
    collection.block(0)
    best = float("inf")
    for block in range(1, 8):
        start = time.process_time()  # what others do on the machine does not count
        collection.block(block)
        best = min(best, time.process_time() - start)
    assert collection.block_size / best > 20_000
