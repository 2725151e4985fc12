"""The engine as a process: what it is asked, how it fails, and that nothing of it is left behind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import chess
import numpy as np
import pytest

from qsft.envs import EpisodeError, make, make_policy
from qsft.envs.chess.engine import MATE, Candidate, Engine, EngineError, EngineSettings
from qsft.envs.chess.skill import LINES, pick, search_depth, skill_level, weak_move
from qsft.envs.collect import collect_to_file
from qsft.errors import ConfigError, DataError
from qsft.evaluation.rollout import failed, rollout

MIDDLE = "r2q1rk1/pp2bppp/2n1pn2/3p1b2/3P4/2N1BN2/PP2BPPP/R2Q1RK1 w - - 4 11"


def pid_of(engine: Engine) -> int:
    assert engine._process is not None
    return engine._process.pid


def is_gone(pid: int) -> bool:
    """Neither running nor a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


class Scripted:
    """Plays 1. a3 2. b3 3. c3 ... in every game."""

    name = "scripted"

    def seed(self, seed: int) -> None:
        pass

    def act(self, histories: list) -> list[str]:
        return [f"{'abcdefgh'[len(history.turns) // 2]} 3\n" for history in histories]


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        ("die", r"died \(exit status 3\)"),
        ("hang", "did not answer within 2 s"),
        ("mumble", "gave no move for"),
        ("a2a4", "answered 'a2a4', which is not legal"),
    ],
)
def test_an_engine_that_fails_costs_one_episode(
    stand_in: Callable[..., str], failure: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Three games of three turns, one after the other; the engine fails in the second."""
    path = stand_in("a7a6", "b7b6", "c7c6", "a7a6", failure, "a7a6", "b7b6", "c7c6")
    environments = []

    def factory() -> object:
        environments.append(make("chess", max_moves=2, engine=path, engine_timeout=2))
        return environments[-1]

    games = list(rollout(Scripted(), factory, 3, seed=0, batch_size=1, progress=False))
    assert [game.ended for game in games] == ["truncated", None, "truncated"]
    assert failed(games) == [games[1]]
    assert "EngineError" in games[1].metadata["error"]
    assert path in games[1].metadata["error"]
    assert len(games[1].rewards) == 1, "the turn that broke it has no reward"
    assert games[2].metadata["replies"] == ["a7a6", "b7b6", "c7c6"], "a new engine plays on"
    assert len(environments) == 2
    with pytest.raises(EpisodeError, match=message):
        raise EpisodeError(games[1].metadata["error"])
    assert "episode 1 of chess failed" in caplog.text


def test_a_players_engine_that_fails_twice_costs_one_episode(stand_in: Callable[..., str]) -> None:
    """The player's own moves are asked for as the opponent's are; once more, and then its game is over."""
    settings = EngineSettings(stand_in("die", "a2a3", "b2b3", "a2a3", "die", "die", "a2a3", "b2b3"), 2)
    policy = make_policy("chess", "stockfish")
    policy._settings = settings  # type: ignore[attr-defined]
    games = list(
        rollout(policy, lambda: make("chess", opponent="random", max_moves=1), 3, 0, batch_size=1, progress=False)
    )
    assert ["error" in game.metadata for game in games] == [False, True, False]
    assert "UnansweredTurns" not in games[1].metadata["error"] and "EngineError" in games[1].metadata["error"]


def test_an_evaluation_without_an_engine_ends_at_once(tmp_path: Path) -> None:
    missing = str(tmp_path / "nothing")
    policy = make_policy("chess", "random")
    with pytest.raises(ConfigError, match=r"chess: .*nothing' is no program"):
        list(rollout(policy, lambda: make("chess", engine=missing), 3, seed=0, progress=False))


def test_a_failed_game_cannot_go_on(stand_in: Callable[..., str]) -> None:
    env = make("chess", engine=stand_in("die", "a7a6"))
    env.reset()
    with pytest.raises(EngineError, match=r"engine .*engine died \(exit status 3\)") as caught:
        env.step("a 3\n")
    assert "\n" not in str(caught.value)
    with pytest.raises(EpisodeError, match=r"call reset\(\)"):
        env.step("a 3\n")
    env.reset()
    assert env.step("a 3\n")[1] == 0.0


def test_no_process_is_left_behind(stand_in: Callable[..., str]) -> None:
    path = stand_in("die", "a7a6", "a7a6")
    settings = EngineSettings(path)
    engine = settings.shared()
    engine.start()
    first = pid_of(engine)
    with pytest.raises(EngineError):
        engine.candidates(chess.STARTING_FEN, 1, 1)
    assert is_gone(first)
    one, other = make("chess", engine=path), make("chess", engine=path)
    one.reset()
    other.reset()
    second = pid_of(engine)
    assert settings.shared() is engine, "one process for all games of a thread"
    del engine
    one.close()
    one.close()
    assert not is_gone(second), "the other still needs it"
    assert other.step("a 3\n")[1] == 0.0
    other.close()
    assert is_gone(second)
    one.reset()
    third = pid_of(settings.shared())
    del one, other
    gc.collect()
    assert is_gone(third), "forgotten, not closed"


def test_the_engine_ends_with_its_python(stand_in: Callable[..., str]) -> None:
    program = (
        "import sys, os; from qsft.envs.chess.engine import Engine\n"
        f"engine = Engine({stand_in()!r}); engine.start()\n"
        "print(engine._process.pid, flush=True)\n"
        "{end}"
    )
    for end in ("", "raise SystemExit(3)", "os.kill(os.getpid(), 9)"):
        done = subprocess.run([sys.executable, "-c", program.format(end=end)], capture_output=True, text=True)
        pid = int(done.stdout)
        for _ in range(100):
            if is_gone(pid):
                break
            time.sleep(0.05)
        assert is_gone(pid), end


def test_each_thread_has_its_own(stand_in: Callable[..., str]) -> None:
    settings = EngineSettings(stand_in())
    mine, theirs = settings.shared(), []
    thread = threading.Thread(target=lambda: theirs.append(settings.shared()))
    thread.start()
    thread.join()
    assert theirs[0] is not mine
    assert settings.shared() is mine
    assert settings.shared(UCI_Elo=1500) is not mine


def test_an_engine_that_is_none(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("echo hello\n")
    for path, reason in (("true", r"died \(exit status 0\)"), ("false", r"exit status 1")):
        with pytest.raises(ConfigError, match=rf"{path} is no UCI engine such as Stockfish \(.*{reason}\)") as caught:
            make("chess", engine=path).reset()
        assert "\n" not in str(caught.value)
    script.chmod(0o755)
    with pytest.raises(ConfigError, match=r"cannot run the engine .*script"):
        make("chess", engine=str(script)).reset()


# --- the weak player's rule -------------------------------------------------------------------------------------------


def test_levels_and_depths_of_an_elo() -> None:
    assert [search_depth(elo) for elo in (1350, 1489, 1490, 1700, 2000, 2850)] == [1, 1, 2, 4, 7, 19]
    assert skill_level(1350) == pytest.approx(0.0096, abs=1e-3)
    assert skill_level(2850) == pytest.approx(18.4, abs=0.1)


def test_pick() -> None:
    rng = np.random.default_rng(0)

    def shares(level: float, *scores: int) -> list[float]:
        moves = [Candidate(str(i), score) for i, score in enumerate(scores)]
        counts = Counter(pick(moves, level, rng).move for _ in range(2000))
        return [counts[move.move] / 2000 for move in moves]

    assert shares(0, 7) == [1.0]
    assert shares(0, 50, 50, 50, 50) == [0, 0, 0, 1.0], "without a span there is no luck, and the last is taken"
    assert shares(0, 50, 49, 48, 47) == pytest.approx([0.25] * 4, abs=0.06)
    assert shares(0, MATE - 1, 300, 200, 100) == [1.0, 0, 0, 0], "mate is given"
    assert shares(0, -300, -400, -MATE + 2, -MATE + 2)[2:] == [0, 0], "and not walked into"
    weak, strong = shares(0, 200, 100, 0, -100), shares(15, 200, 100, 0, -100)
    assert 0.5 < weak[0] < 0.9
    assert strong[0] > 0.99
    # Two moves, span one pawn: by hand, the second wins where u2 - u1 > 2.18 of 120, its handicap of 100 / 16 points.
    handicap = (100 - 120 / 128 * 100) / (34.9 / 128)
    exact = sum(max(0, 120 - 1 - int(handicap) - u) for u in range(120)) / 120**2
    assert shares(0, 100, 0)[1] == pytest.approx(exact, abs=0.04)


# --- the real engine --------------------------------------------------------------------------------------------------


def test_answers_depend_on_the_question_alone(stockfish: str) -> None:
    engine = Engine(stockfish)
    first = engine.candidates(MIDDLE, 5, 4)
    assert len(first) == len({candidate.move for candidate in first}) == 4
    assert [candidate.score for candidate in first] == sorted((c.score for c in first), reverse=True)
    assert all(chess.Move.from_uci(candidate.move) in chess.Board(MIDDLE).legal_moves for candidate in first)
    engine.candidates(chess.STARTING_FEN, 8, 1)
    assert engine.candidates(MIDDLE, 5, 4) == first
    other = Engine(stockfish)
    assert other.candidates(MIDDLE, 5, 4) == first
    assert other.candidates("7k/5K2/8/8/8/8/8/1Q6 w - - 0 1", 3, 1)[0].score == MATE - 1
    assert other.candidates("7k/5K2/8/6Q1/8/8/8/8 b - - 0 1", 5, 4) == [Candidate("h8h7", -MATE + 1)], "one legal move"
    engine.close()
    other.close()


def test_the_weak_player_is_stockfish_limited_to_its_elo(stockfish: str) -> None:
    """Shares of the moves over 600 draws each, in three positions and at two strengths."""
    rng = np.random.default_rng(1)
    free = Engine(stockfish)
    for elo in (1350, 1700):
        limited = Engine(stockfish, UCI_LimitStrength="true", UCI_Elo=elo)
        for fen in (
            MIDDLE,
            "8/3k4/8/8/8/3K4/8/R7 w - - 0 1",
            "rn1qkbnr/ppp2ppp/8/3pp3/3P2b1/4PN2/PPP2PPP/RNBQKB1R w KQkq - 0 4",
        ):
            go = f"ucinewgame\nposition fen {fen}\ngo depth {search_depth(elo)}\n"
            real = Counter(limited._ask(go)[-1].split()[1].decode() for _ in range(300))
            ours = Counter(weak_move(free, fen, elo, rng) for _ in range(300))
            distance = sum(abs(real[move] - ours[move]) for move in real | ours) / 600
            assert distance < 0.17, (elo, fen, real, ours)
            assert set(ours) <= {candidate.move for candidate in free.candidates(fen, search_depth(elo), LINES)}


def test_seeded_games_are_the_same_and_others_are_not(stockfish: str) -> None:
    def game(seed: int) -> list[str]:
        env = make("chess", max_moves=3)
        env.reset(seed=seed)
        for move in ("a 3\n", "b 3\n", "h 3\n"):
            env.step(move)
        return env.step("illegal\n")[4]["replies"]

    games = [game(seed) for seed in (1, 1, 2, 3, 4)]
    assert games[0] == games[1]
    assert len({tuple(replies) for replies in games}) > 2


def test_the_elo_limited_opponent(stockfish: str) -> None:
    env = make("chess", opponent="stockfish-elo", elo=1500, move_seconds=0.005, max_moves=3)
    env.reset(seed=0)
    for move in ("a 3\n", "b 3\n", "h 3\n"):
        env.step(move)
    assert len(env.step("illegal\n")[4]["replies"]) == 3
    assert env._opponent.engine.options["UCI_Elo"] == 1500
    assert env._opponent.engine.options["UCI_LimitStrength"] == "true"


def test_a_collection_against_it_is_continued_though_it_does_not_repeat_itself(stockfish: str, tmp_path: Path) -> None:
    out, partial = tmp_path / "games.jsonl", tmp_path / "games.partial.jsonl"
    options = {"opponent": "stockfish-elo", "move_seconds": 0.002, "max_moves": 6}
    collect_to_file("endgames", "random", 6, out, 3, options)
    kept = out.read_text().splitlines(keepends=True)[:4]
    out.unlink()
    partial.write_text("".join(kept))
    with pytest.raises(DataError, match="row 1: not what this command"):
        collect_to_file("endgames", "random", 6, out, 3, options | {"max_moves": 7})
    collect_to_file("endgames", "random", 6, out, 3, options)
    lines = out.read_text().splitlines(keepends=True)
    assert (lines[:4], len(lines)) == (kept, 6)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_stockfish_killed_or_stopped_in_a_game(stockfish: str, how: int) -> None:
    """Eight random games in three slots; the engine that all share is struck once, in the middle."""
    policy = make_policy("chess", "random", seed=0)
    struck: list[int] = []
    act = policy.act

    def strike(histories: list) -> list[str]:
        engine = EngineSettings(None, 2).shared()
        if not struck and max(len(history.turns) for history in histories) > 8:
            struck.append(pid_of(engine))
            os.kill(struck[0], how)
        return act(histories)

    policy.act = strike  # type: ignore[method-assign]
    games = list(rollout(policy, lambda: make("chess", engine_timeout=2, max_moves=60), 8, 0, 3, progress=False))
    assert len(failed(games)) == 1
    assert "EngineError" in failed(games)[0].metadata["error"]
    assert sum(game.ended is not None for game in games) == 7
    assert is_gone(struck[0])
