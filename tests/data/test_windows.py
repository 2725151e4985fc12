"""Pieces of trajectories: by hand, and that nothing is lost."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qsft.data.trajectory import Trajectory, Turn
from qsft.data.windows import settled_windows, windows
from qsft.errors import ConfigError


def episode(turns: int, ended: str = "terminated", last_answer: bool = True, system: bool = False) -> Trajectory:
    said = [Turn("system", "rules")] if system else []
    for i in range(turns):
        said += [Turn("user", f"s{i}\n"), Turn("assistant", f"a{i}\n", float(i))]
    said += [Turn("user", f"s{turns}\n")] if last_answer else []
    return Trajectory(said, ended, {"success": True, "states": [[0.0]]})  # type: ignore[arg-type]


def test_by_hand() -> None:
    first, second = windows(episode(3, system=True), 2)
    assert [turn.text for turn in first.turns] == ["rules", "s0\n", "a0\n", "s1\n", "a1\n", "s2\n"]
    assert [turn.text for turn in second.turns] == ["rules", "s2\n", "a2\n", "s3\n"]
    assert (first.ended, second.ended) == ("truncated", "terminated")
    assert (first.rewards, second.rewards) == ([0.0, 1.0], [2.0])
    assert second.metadata == {"success": True, "window": 1}


@given(st.integers(1, 12), st.integers(1, 15), st.booleans(), st.sampled_from(["terminated", "truncated"]))
def test_nothing_is_lost(turns: int, size: int, last_answer: bool, ended: str) -> None:
    whole = episode(turns, ended, last_answer)
    pieces = windows(whole, size)
    assert len(pieces) == -(-turns // size)
    assert [turn for piece in pieces for turn in piece.agent_turns] == list(whole.agent_turns)
    assert all(len(piece.rewards) == size for piece in pieces[:-1])
    assert all(piece.ended == "truncated" for piece in pieces[:-1]) and pieces[-1].ended == ended
    for piece, following in itertools.pairwise(pieces):
        assert piece.turns[-1] == following.turns[0], "a piece ends with what the next one begins with"
    assert pieces[-1].turns[-1] == whole.turns[-1]
    assert pieces[0].turns[0] == whole.turns[0]


def test_settled_by_hand() -> None:
    first, second = settled_windows(episode(3, system=True), 2)
    assert [turn.text for turn in first.turns] == ["rules", "s0\n", "a0\n", "s1\n", "a1\n"]
    assert (first.ended, first.rewards) == ("terminated", [0.0, 3.0])
    assert second == windows(episode(3, system=True), 2)[1]


@given(st.integers(1, 12), st.integers(1, 15), st.sampled_from(["terminated", "truncated"]))
def test_settled_pieces_have_the_returns_of_the_whole(turns: int, size: int, ended: str) -> None:
    def to_go(rewards: list[float]) -> list[float]:
        return [sum(rewards[i:]) for i in range(len(rewards))]

    whole = episode(turns, ended)
    pieces = settled_windows(whole, size)
    assert [value for piece in pieces for value in to_go(piece.rewards)] == to_go(whole.rewards)
    assert [piece.ended for piece in pieces] == ["terminated"] * (len(pieces) - 1) + [ended]


def test_turns_below_1() -> None:
    with pytest.raises(ConfigError, match="turns=0 is less than 1"):
        windows(episode(1), 0)
