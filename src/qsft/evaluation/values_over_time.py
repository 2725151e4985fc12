"""What a policy expects, turn by turn, over a logged episode, beside what came."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from qsft.data.files import replacing
from qsft.data.returns import GammaPer, returns_to_go
from qsft.data.text_files import make_folder, write_text
from qsft.data.trajectory import Trajectory
from qsft.errors import ConfigError, DataError
from qsft.evaluation.charts import Axis, axis
from qsft.evaluation.drawing import Drawing
from qsft.evaluation.markup import number, tag
from qsft.evaluation.report import page
from qsft.evaluation.sections import table

_INK, _MUTED, _RULE = "#20242a", "#5a626d", "#e2e2dc"
#: name, colour and length of the dashes of each line, in the order of a turn's fields
LINES = (
    ("V before the turn", "#24598f", 0.0),
    ("Q of its first token", "#b0501c", 6.0),
    ("Q of all of it", "#a8324a", 2.5),
    ("return that followed", "#2f7a4d", 0.0),
)
_REWARD = "#7a4fa3"
_ENDINGS = (".svg", ".png", ".html")
_TURNS_AT_ONCE = 16
# Rewards are written beside their marks as long as they do not run into each other.
_LABELLED_REWARDS = 16


class ValuePolicy(Protocol):
    """A policy with Q-values, such as :class:`qsft.policies.model.ModelPolicy` of a method that has them."""

    def state_values(self, histories: Sequence[Trajectory], *, backup_beta: float | None) -> list[float]: ...

    def q_values(self, history: Trajectory, candidates: Sequence[str]) -> list: ...


@dataclass(frozen=True, slots=True)
class TurnValue:
    """One turn of the agent.

    Attributes:
        text: what it said.
        value: V of the state before it.
        first_q: Q of its first token: what follows from beginning so and going on well.
        q: Q of its last token: what follows from saying all of it.
        return_to_go: what was realised from the turn on.
        reward: of the turn.
    """

    text: str
    value: float
    first_q: float
    q: float
    return_to_go: float
    reward: float


def turn_values(
    policy: ValuePolicy,
    trajectory: Trajectory,
    gamma: float = 1.0,
    gamma_per: GammaPer = "turn",
    backup_beta: float | None = 15.0,
) -> list[TurnValue]:
    """The values of each turn of the agent, in reward units.

    Args:
        policy: with Q-values (and its behaviour model loaded).
        trajectory: finished; any images as files that can be read from here.
        gamma, gamma_per: the discount that the policy was trained with, for the return that followed.
        backup_beta: V is the soft maximum with this inverse temperature over the plausible tokens; ``None``: the hard
            one, which picks out errors where there are many tokens.

    Raises:
        DataError: no turn of the agent, or one without a reward.
        ConfigError: the policy has no Q-values.
    """
    histories, rewards = trajectory.histories(), trajectory.rewards
    if not histories or len(rewards) != len(histories):
        raise DataError("trajectory: give one with turns of the agent, each with its reward")
    values: list[float] = []
    for first in range(0, len(histories), _TURNS_AT_ONCE):
        values += policy.state_values(histories[first : first + _TURNS_AT_ONCE], backup_beta=backup_beta)
    texts = [turn.text for turn in trajectory.agent_turns]
    replies = [policy.q_values(history, [text])[0] for history, text in zip(histories, texts, strict=True)]
    lengths = [len(reply.tokens) for reply in replies]
    to_go = returns_to_go(rewards, gamma, gamma_per, lengths).tolist()
    return [
        TurnValue(text, value, reply.tokens[0].q, reply.q, follows, reward)
        for text, value, reply, follows, reward in zip(texts, values, replies, to_go, rewards, strict=True)
    ]


def values_drawing(
    turns: Sequence[TurnValue], title: str, width: int = 860, height: int = 380, until: int | None = None
) -> Drawing:
    """Lines of V, Q and the return that followed over the turns, and a mark for each reward that is not 0.

    Args:
        turns: of :func:`turn_values`.
        title: heading.
        width, height: in pixels.
        until: draw the lines up to this turn (from 0) only, with a dot at their ends; for films.
    """
    drawing = Drawing(width, height, _described(turns, title))
    rows = [_row(turn) for turn in turns]
    ys = axis((value for row in rows for value in row), ticks=5)
    xs = axis([1, max(len(turns), 2)], padding=0.0, ticks=min(len(turns), 8) or 1)
    left, right, bottom = 62.0, width - 18.0, height - 58.0
    drawing.text((left, 26), title, 17, _INK)
    top = _legend(drawing, left, right) + 24

    def place(turn: float, value: float) -> tuple[float, float]:
        return left + xs.percent(turn) / 100 * (right - left), bottom - ys.percent(value) / 100 * (bottom - top)

    for tick in ys.ticks:
        y = place(1, tick)[1]
        drawing.line([(left, y), (right, y)], _RULE, 1)
        drawing.text((left - 8, y + 4), ys.label(tick), 12, _MUTED, "end")
    for tick in _whole(xs):
        x = place(tick, ys.low)[0]
        drawing.line([(x, bottom), (x, bottom + 4)], _MUTED, 1)
        drawing.text((x, bottom + 18), str(tick), 12, _MUTED, "middle")
    drawing.text(((left + right) / 2, height - 20), "turn of the agent", 12, _MUTED, "middle")
    drawing.line([(left, bottom), (right, bottom)], _MUTED, 1)

    shown = rows if until is None else rows[: until + 1]
    for line, (_, colour, dashes) in enumerate(LINES):
        points = [place(turn, row[line]) for turn, row in enumerate(shown, 1)]
        if len(points) > 1:
            drawing.line(points, colour, 2.2, dashes)
        if points and (until is not None or len(points) == 1):
            drawing.dot(points[-1], 4, colour)
    paid = [(i, turn.reward) for i, turn in enumerate(turns[: len(shown)], 1) if turn.reward]
    for turn, reward in paid:
        x = place(turn, ys.low)[0]
        drawing.line([(x, bottom), (x, bottom - 10)], _REWARD, 3)
        if len(paid) <= _LABELLED_REWARDS:
            anchor = "start" if x < left + 20 else "end" if x > right - 20 else "middle"
            drawing.text((x, bottom - 14), _signed(reward), 12, _REWARD, anchor)
    return drawing


def values_page(turns: Sequence[TurnValue], title: str) -> str:
    """The drawing and a table of the turns as one self-contained HTML page."""
    head = ["Turn", "Said", *(name for name, _, _ in LINES), "Reward"]
    body = [
        [str(i), tag("code", _shortened(turn.text)), *map(number, (*_row(turn), turn.reward))]
        for i, turn in enumerate(turns, 1)
    ]
    content = [
        tag("div", values_drawing(turns, title).svg(), class_="scroll"),
        table(head, body, text_columns=(1,)),
    ]
    return page(title, [("values", "Values over time", content)])


def check_ending(path: str | os.PathLike[str]) -> None:
    """Raises ConfigError for a file that :func:`save_values` does not write."""
    if Path(path).suffix not in _ENDINGS:
        raise ConfigError(f"{os.fspath(path)}: charts of values end in {', '.join(_ENDINGS)}")


def save_values(turns: Sequence[TurnValue], path: str | os.PathLike[str], title: str) -> None:
    """Writes the drawing, whole or not at all.

    Args:
        turns: of :func:`turn_values`.
        path: ends in ``.svg``, ``.png`` or ``.html`` (with a table of the turns).
        title: heading.

    Raises:
        ConfigError: another ending, or (PNG) Pillow is not installed.
        DataError: the file cannot be written.
    """
    check_ending(path)
    path = Path(path)
    if path.suffix == ".html":
        write_text(path, values_page(turns, title))
        return
    drawing = values_drawing(turns, title)
    if path.suffix == ".svg":
        write_text(path, drawing.svg() + "\n")
        return
    image = drawing.image()
    make_folder(path)
    with replacing(path) as file:
        image.save(file, "PNG")


def _legend(drawing: Drawing, left: float, right: float) -> float:
    """Draws as many rows as it takes, and returns where the last one ends."""
    x, y = left, 48.0
    for name, colour, dashes in (*LINES, ("reward", _REWARD, 0.0)):
        size = 28 + 6.4 * len(name)  # a little more than such a text takes in any font
        if x > left and x + size > right:
            x, y = left, y + 18
        drawing.line([(x, y), (x + 22, y)], colour, 2.2, dashes)
        drawing.text((x + 28, y + 4), name, 12, _MUTED)
        x += size + 16
    return y


def _whole(scale: Axis) -> list[int]:
    return sorted({round(tick) for tick in scale.ticks if abs(tick - round(tick)) < 1e-9 and tick >= 1})


def _signed(reward: float) -> str:
    text = number(reward, 0 if reward == int(reward) else 2)
    return f"+{text}" if reward > 0 else text


def _row(turn: TurnValue) -> tuple[float, float, float, float]:
    """What each of LINES shows."""
    return turn.value, turn.first_q, turn.q, turn.return_to_go


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 80 else line[:77] + "..."


def _described(turns: Sequence[TurnValue], title: str) -> str:
    if not turns:
        return title
    first, last = turns[0], turns[-1]
    return (
        f"{title}: V goes from {number(first.value)} before turn 1 to {number(last.value)} before turn {len(turns)}; "
        f"the return was {number(first.return_to_go)}."
    )
