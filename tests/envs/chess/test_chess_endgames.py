"""Endgame positions: possible, of the four kinds, and the held-out ones never among those to train on."""

from __future__ import annotations

from collections import Counter

import chess
import numpy as np
import pytest

from qsft.envs import make
from qsft.envs.chess import endgames, held_out_positions
from qsft.envs.chess.texts import parse_observation
from qsft.errors import ConfigError

# Pieces of a placement, sorted.
KINDS = {"KQk", "KRk", "KQRk", "KRRk"}


def kind(fen: str) -> str:
    return "".join(sorted(c for c in fen.split()[0] if c.isalpha()))


def assert_possible(fen: str) -> None:
    board = chess.Board(fen)
    assert board.is_valid()
    assert not board.is_check()
    assert board.turn == chess.WHITE
    assert fen.split()[1:] == ["w", "-", "-", "0", "1"]
    assert kind(fen) in KINDS


def test_held_out_positions() -> None:
    held_out = held_out_positions()
    assert len(held_out) == len(set(held_out)) == 645
    for fen in held_out:
        assert_possible(fen)
    counts = Counter(map(kind, held_out))
    assert set(counts) == KINDS
    assert min(counts.values()) > 120, "the four kinds alike"
    assert list(held_out) == endgames.draw_held_out(seed=0), "as they were drawn"


def test_the_generator_draws_what_is_possible_and_the_four_kinds_alike() -> None:
    rng = np.random.default_rng(5)
    fens = [endgames.random_position(rng) for _ in range(1200)]
    for fen in fens:
        assert_possible(fen)
    assert len(set(fens)) > 1150
    counts = Counter(map(kind, fens))
    assert set(counts) == KINDS
    assert max(abs(count - 300) for count in counts.values()) < 5 * 15
    # Every square is used by both kings.
    for king in "Kk":
        assert len({chess.Board(fen).king(king == "K") for fen in fens}) == 64


def test_training_positions_are_never_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The generator is made to draw nothing but held-out positions, and a single other one at the end."""
    held_out = list(held_out_positions())
    other = "8/8/8/3k4/8/8/8/KQ6 w - - 0 1"
    assert other not in held_out
    draws = iter([*held_out, other])
    monkeypatch.setattr(endgames, "random_position", lambda rng: next(draws))
    assert endgames.training_position(np.random.default_rng(0)) == other
    draws = iter([held_out[7], other])
    env = make("endgames", opponent="random")
    assert parse_observation(env.reset(seed=0)[0]) == other
    draws = iter([held_out[7], other])
    assert parse_observation(env.twin().reset(seed=0)[0]) == other


def test_the_real_generator_meets_held_out_positions_unless_they_are_refused() -> None:
    """The seed that drew them draws them again: each is refused, and what comes instead is not held out."""
    held_out = set(held_out_positions())
    rng = np.random.default_rng(0)
    found = [endgames.training_position(rng) for _ in range(200)]
    assert not held_out & set(found)
    rng = np.random.default_rng(0)
    assert held_out >= {endgames.random_position(rng) for _ in range(645)}


def test_positions_of_the_environment() -> None:
    held_out = set(held_out_positions())
    for positions, expected in (("training", False), ("held-out", True)):
        env = make("endgames", positions=positions, opponent="random")
        fens = {parse_observation(env.reset(seed=seed)[0]) for seed in range(150)}
        assert len(fens) > 120
        assert {fen in held_out for fen in fens} == {expected}
        assert set(map(kind, fens)) == KINDS
    first = env.reset(seed=9)[0]
    assert env.reset(seed=9)[0] == first != env.reset()[0]
    fen = "8/8/8/3k4/8/8/8/KQ6 w - - 0 1"
    assert parse_observation(env.reset(options={"fen": fen})[0]) == fen
    with pytest.raises(ConfigError, match="positions='test' is unknown; use one of training, held-out"):
        make("endgames", positions="test")


def test_an_endgame_to_its_mate() -> None:
    env = make("endgames")
    env.reset(options={"fen": "7k/8/5K2/8/8/8/8/1Q6 w - - 0 1", "replies": ["h8g8"]})
    assert env.step("Q b 7\n")[1:3] == (0.0, False)
    _, reward, terminated, _, info = env.step("Q g 7 #\n")
    assert (reward, terminated, info["success"]) == (1.0, True, True)
