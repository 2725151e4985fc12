"""The generator: games that depend on seed and number alone, played side by side."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qsft.data.files import load_trajectories
from qsft.data.trajectory import AGENT_ROLE, Trajectory, Turn
from qsft.envs import collect_to_file, make, make_policy
from qsft.envs.chess import collect
from qsft.envs.chess.collect import ChessPlayer
from qsft.envs.chess.endgames import held_out_positions
from qsft.envs.collect import Collection
from qsft.envs.rollout import derive_seed, rollout


def player(
    policy: str = "random", workers: int = 1, size: int = 6, name: str = "chess", **options: object
) -> ChessPlayer:
    options = {"opponent": "random", "max_moves": 6, **options}
    made = ChessPlayer(make(name, **options), make_policy(name, policy, env_options=options), workers)
    made.size = size
    return made


def test_neither_workers_nor_block_size_change_a_game() -> None:
    games = player().play(3, 0) + player().play(3, 1)
    assert len({json.dumps([turn.text for turn in game.turns]) for game in games}) == 12
    assert player(workers=3, size=12).play(3, 0) == games
    assert player(workers=2, size=4).play(3, 2) == games[8:12]
    assert player().play(4, 0) != games[:6]


def test_they_are_the_games_turn_by_turn() -> None:
    """The same first positions, the same luck of both sides: the rollout plays the same moves."""

    class OneGame:
        name = "one game"

        def __init__(self, episode: int) -> None:
            policy = make_policy("endgames", "random")
            self.policy, self.choose = policy, policy.begin(np.random.default_rng(derive_seed(5, 1, episode)))

        def seed(self, seed: int) -> None:
            pass

        def act(self, histories: list[Trajectory]) -> list[str]:
            self.policy.begin = lambda rng: self.choose  # type: ignore[method-assign]
            return self.policy.act(histories)

    for episode, game in enumerate(player(name="endgames", max_moves=20).play(5, 0)):
        env = make("endgames", opponent="random", max_moves=20)
        (slow,) = rollout([env], OneGame(episode), [derive_seed(5, 0, episode)])
        assert slow == game


def test_trajectories() -> None:
    for game in player(name="endgames").play(0, 0):
        assert list(game.metadata) == ["fen", "replies", "success"]
        assert [turn.role for turn in game.turns] == ["user", "assistant"] * (len(game.turns) // 2) + ["user"]
        assert all((turn.reward is None) == (turn.role != AGENT_ROLE) for turn in game.turns)
        assert game.turns[0] == Turn("user", " ".join(game.metadata["fen"]))
        assert game.ended in ("terminated", "truncated")


def test_it_is_used_for_scripted_policies_and_no_others() -> None:
    collection = Collection("endgames", "random", 0, {"opponent": "random", "max_moves": 3})
    assert isinstance(collection._player, ChessPlayer)
    assert collection.block_size % 16 == 0

    class Stranger:
        name = "stranger"

    assert make("chess").block_player(Stranger()) is None  # type: ignore[arg-type]


def test_a_file_is_continued_to_the_same_bytes_and_holds_no_held_out_position(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect, "_cores", lambda: 1)
    options = {"opponent": "random", "max_moves": 5}
    whole, again = tmp_path / "whole.jsonl", tmp_path / "again.jsonl"
    collect_to_file("endgames", "random", 40, whole, 7, options)
    lines = whole.read_bytes().splitlines(keepends=True)
    (tmp_path / "again.partial.jsonl").write_bytes(b"".join(lines[:21]) + lines[21][:30])
    monkeypatch.setattr(collect, "_cores", lambda: 2)  # on another machine
    collect_to_file("endgames", "random", 40, again, 7, options)
    assert again.read_bytes() == whole.read_bytes()
    games = list(load_trajectories(whole))
    assert [game.metadata["episode"] for game in games] == list(range(40))
    held_out = {" ".join(fen) for fen in held_out_positions()}
    assert not held_out & {turn.text for game in games for turn in game.turns}


def test_a_game_that_the_engine_fails_in_is_played_again(
    stand_in: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    answers = ["a7a6", "b7b6"]
    options = {"opponent": "stockfish-depth1", "max_moves": 1}
    expected = player(size=3, engine=stand_in(*answers * 3), **options).play(0, 0)
    failing = player(size=3, engine=stand_in(*answers, "a7a6", "die", *answers * 2), **options)
    assert failing.play(0, 0) == expected
    assert "game 1 is played again" in caplog.text
    hopeless = player(size=3, engine=stand_in("die", "die", *["a7a6"] * 9), **options)
    first, *others = hopeless.play(0, 0)
    assert "died" in first.metadata["error"] and first.ended is None and first.turns == []
    assert len(others) == 2, "the others were played on"


def test_games_run_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both workers are inside a game at the same time."""
    meeting = threading.Barrier(2, timeout=10)
    inner = collect._play

    def meet(*arguments: object) -> Trajectory:
        meeting.wait()
        return inner(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(collect, "_play", meet)
    assert len(player(workers=2, size=4).play(0, 0)) == 4


def test_the_threads_end_with_the_player() -> None:
    made = player(workers=3)
    made.play(0, 0)
    threads = list(made._executor._threads)
    assert len(threads) == 3
    del made
    for thread in threads:
        thread.join(timeout=10)
    assert not any(thread.is_alive() for thread in threads)


def test_stockfish_games(stockfish: str) -> None:
    """Reproducible with the real engine, across different numbers of workers."""
    options = {"opponent": "stockfish-depth1", "max_moves": 12}
    games = player("mixture", 2, 6, "endgames", **options).play(1, 0)
    assert player("mixture", 1, 6, "endgames", **options).play(1, 0) == games
