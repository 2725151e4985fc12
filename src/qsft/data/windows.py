"""Long episodes cut into short ones, for games whose last observations tell all that matters."""

from __future__ import annotations

from dataclasses import replace

from qsft.data.trajectory import Trajectory, Turn
from qsft.errors import ConfigError

# Large, and of no use to a model; the whole episodes keep them.
_LEFT_OUT = ("states", "vectors")


def settled_windows(trajectory: Trajectory, turns: int) -> list[Trajectory]:
    """:func:`windows` that know the return behind them, for methods that learn from returns.

    A piece that the trajectory goes on after is ``terminated``: to the reward of its last agent turn is added all that
    followed, undiscounted, and what the environment said then is left out. So the return-to-go at every turn is the
    trajectory's, and a backup reaches as far as the piece does. Parameters and errors are those of :func:`windows`.
    """
    rewards = trajectory.rewards
    pieces = windows(trajectory, turns)
    for number, piece in enumerate(pieces[:-1], 1):
        last = max(i for i, turn in enumerate(piece.turns) if turn.is_agent)
        settled = replace(piece.turns[last], reward=sum(rewards[turns * number - 1 :]))
        pieces[number - 1] = Trajectory([*piece.turns[:last], settled], "terminated", piece.metadata)
    return pieces


def windows(trajectory: Trajectory, turns: int) -> list[Trajectory]:
    """A trajectory as pieces of at most ``turns`` agent turns, one after the other.

    A model that is trained on them values a state alike whatever came long before: what stitching needs, where one
    trajectory ends in a state that another begins with. Play with a tokenizer whose ``max_length`` leaves as little
    history.

    Each piece begins with what the environment said before its first agent turn and ends with what it said after its
    last; all but the last are ``truncated``, so the value after them is bootstrapped from there. System turns at the
    start are repeated in all of them. Their metadata is the trajectory's, with ``window`` (a number, from 0) and
    without ``states`` and ``vectors``.

    Args:
        trajectory: finished; agent turns with a turn of the environment before each, as episodes of qsft's environments
            are.
        turns: at least 1.

    Raises:
        ConfigError: ``turns`` below 1.
    """
    if turns < 1:
        raise ConfigError(f"turns={turns} is less than 1; give the number of agent turns of a piece")
    start = 0
    while start < len(trajectory.turns) and trajectory.turns[start].role == "system":
        start += 1
    system, rest = trajectory.turns[:start], trajectory.turns[start:]
    metadata = {name: value for name, value in trajectory.metadata.items() if name not in _LEFT_OUT}
    pieces: list[Trajectory] = []
    piece: list[Turn] = []
    spoken = 0
    heard: list[Turn] = []  # from the environment, since the last agent turn
    for turn in rest:
        if not turn.is_agent:
            heard.append(turn)
            continue
        if spoken == turns:
            pieces.append(Trajectory([*system, *piece, *heard], "truncated", {**metadata, "window": len(pieces)}))
            piece, spoken = [], 0
        piece += [*heard, turn]
        spoken += 1
        heard = []
    pieces.append(Trajectory([*system, *piece, *heard], trajectory.ended, {**metadata, "window": len(pieces)}))
    return pieces
