"""One row at a time: what is accepted, what comes of it, and what each refusal says."""

from __future__ import annotations

import json

import numpy as np
import pytest

from qsft.data import Trajectory, Turn, trajectory_from_row, trajectory_to_row
from qsft.data.rows import json_line
from qsft.errors import DataError

USER = {"role": "user", "content": "Wordle:\n"}
AGENT = {"role": "assistant", "content": "c r a n e\n"}


def row(**changes):
    made = {"messages": [USER, AGENT, USER, AGENT], "rewards": [-1, 0.5], "ended": "truncated", "metadata": {"a": 1}}
    made.update(changes)
    return {name: value for name, value in made.items() if value is not ...}


def test_a_row_becomes_a_trajectory():
    assert trajectory_from_row(row()) == Trajectory(
        [
            Turn("user", "Wordle:\n"),
            Turn("assistant", "c r a n e\n", -1.0),
            Turn("user", "Wordle:\n"),
            Turn("assistant", "c r a n e\n", 0.5),
        ],
        "truncated",
        {"a": 1},
    )


@pytest.mark.parametrize("absent", [..., None])
def test_what_may_be_absent(absent):
    trajectory = trajectory_from_row(row(ended=absent, metadata=absent))
    assert (trajectory.ended, trajectory.metadata) == ("terminated", {})


def test_columns_of_other_datasets_are_left_alone():
    assert trajectory_from_row(row(source="web", prompt_id=3)) == trajectory_from_row(row())


@pytest.mark.parametrize("rewards", [np.array([-1.0, 0.5], np.float32), (-1, 0.5), [np.int64(-1), np.float32(0.5)]])
def test_numbers_of_any_make(rewards):
    values = trajectory_from_row(row(rewards=rewards)).rewards
    assert values == [-1.0, 0.5]
    assert all(type(value) is float for value in values)


def test_content_in_parts():
    parts = [
        {"type": "text", "text": "look: "},
        {"type": "image", "path": "a.png"},
        {"type": "text", "text": "and "},
        {"type": "image_url", "image_url": {"url": "b.png"}},
        {"type": "image"},
    ]
    message = {"role": "user", "content": parts, "images": ["c.png", "d.png"]}
    turn = trajectory_from_row(row(messages=[message, AGENT], rewards=[1])).turns[0]
    assert turn == Turn("user", "look: and ", None, ("a.png", "b.png", "c.png", "d.png"))


def test_parquet_keeps_metadata_as_text():
    assert trajectory_from_row(row(metadata='{"a": [1, null]}')).metadata == {"a": [1, None]}


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ([1], "f: row 3: it is a list, not an object; write"),
        (row(messages=...), "f: row 3: field messages: missing; give"),
        (row(messages="hi"), "f: row 3: field messages: must be a list"),
        (row(messages=[]), "f: row 3: field messages: must be a list with at least one message"),
        (row(messages=[USER], rewards=[]), "f: row 3: field messages: no message has role assistant; drop"),
        (row(messages=[USER, "x"]), "f: row 3: message 2: text; give an object"),
        (row(messages=[USER, {"role": "bot", "content": ""}]), "f: row 3: message 2: field role: 'bot'; use one of"),
        (row(messages=[USER, {"content": ""}]), "f: row 3: message 2: field role: null; use one of"),
        (
            row(messages=[{"role": "user", "content": None}]),
            "f: row 3: message 1: field content: null, not text; write",
        ),
        (row(messages=[{"role": "user", "content": 7}]), "f: row 3: message 1: field content: a number, not text"),
        (row(messages=[{"role": "user", "content": "\ud800"}]), "f: row 3: message 1: field content: half a surrogate"),
        (
            row(messages=[{"role": "user", "content": [{"type": "audio"}]}]),
            "field content: part {'type': 'audio'}; use",
        ),
        (row(messages=[{"role": "user", "content": [{"type": "image"}]}]), "field content: an image without a path"),
        (row(messages=[{**USER, "images": "a.png"}]), "f: row 3: message 1: field images: give a list of paths"),
        (
            row(messages=[{**USER, "images": ["a\0.png"]}]),
            "field images: 'a\\x00.png' holds a null character",
        ),
        (row(messages=[{**USER, "images": ["\ud800.png"]}]), "message 1: field images: half a surrogate pair"),
        (
            row(messages=[{**USER, "images": ["https://a.b/c.png"]}]),
            "field images: 'https://a.b/c.png' is no file; save",
        ),
        (
            row(
                messages=[{"role": "user", "content": [{"type": "image", "url": "data:image/png;base64," + "A" * 999}]}]
            ),
            f"message 1: field images: 'data:image/png;base64,{'A' * 18}' is no file",
        ),
        (row(messages=[USER, {**AGENT, "tool_calls": [{}]}]), "f: row 3: message 2: field tool_calls: not read; write"),
        (row(tools=[{}]), "f: row 3: field tools: not read; write"),
        (row(rewards=...), "f: row 3: field rewards: missing; give"),
        (row(rewards=None), "f: row 3: field rewards: missing; give"),
        (row(rewards=1.0), "f: row 3: field rewards: a number; give a list"),
        (row(rewards="12"), "f: row 3: field rewards: text; give a list"),
        (row(rewards={"a": 1}), "f: row 3: field rewards: an object; give a list"),
        (row(rewards=[1]), "f: row 3: field rewards: 1 values for 2 assistant messages; give one for each"),
        (row(rewards=[1, 2, 3]), "f: row 3: field rewards: 3 values for 2 assistant messages; give one for each"),
        (row(rewards=[1, float("nan")]), "f: row 3: field rewards: value 2 is NaN; give"),
        (row(rewards=[float("-inf"), 1]), "f: row 3: field rewards: value 1 is infinite; give"),
        (row(rewards=[10**400, 1]), "f: row 3: field rewards: value 1 is infinite; give"),
        (row(rewards=[1e39, 1]), "f: row 3: field rewards: value 1 is 1e+39, too large for float32; scale"),
        (row(rewards=[1, True]), "f: row 3: field rewards: value 2 is True, not a number; write"),
        (row(rewards=[1, "2"]), "f: row 3: field rewards: value 2 is '2', not a number; write"),
        (row(rewards=[1, None]), "f: row 3: field rewards: value 2 is null, not a number; write"),
        (row(images=["a.png"]), "f: row 3: field images: not read; write the path of each image into its message"),
        (row(ended="done"), "f: row 3: field ended: 'done'; use terminated"),
        (row(ended=True), "f: row 3: field ended: True; use terminated"),
        (row(metadata=[1]), "f: row 3: field metadata: a list; give an object"),
        (row(metadata="x"), "f: row 3: field metadata: text that is not JSON; give an object"),
    ],
)
def test_refusals_name_the_place_and_the_remedy(bad, says):
    with pytest.raises(DataError) as caught:
        trajectory_from_row(bad, "f: row 3")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_trajectory_becomes_a_row():
    trajectory = Trajectory(
        [Turn("system", "s"), Turn("user", "u", None, ("a.png",)), Turn("assistant", "a", 2.0)], "terminated", {"k": 1}
    )
    assert trajectory_to_row(trajectory) == {
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "u", "images": ["a.png"]},
            {"role": "assistant", "content": "a"},
        ],
        "rewards": [2.0],
        "ended": "terminated",
        "metadata": {"k": 1},
    }
    assert trajectory_from_row(trajectory_to_row(trajectory)) == trajectory


@pytest.mark.parametrize(
    ("turns", "ended", "says"),
    [
        ([Turn("user", "u"), Turn("assistant", "a")], "terminated", "t: turn 2: its reward is not known yet"),
        ([Turn("user", "u"), Turn("assistant", "a", float("nan"))], "terminated", "value 1 is NaN"),
        ([Turn("user", "u", 1.0), Turn("assistant", "a", 1.0)], "terminated", "t: turn 1: role user has a reward"),
        ([Turn("bot", "u"), Turn("assistant", "a", 1.0)], "terminated", "t: turn 1: role 'bot'; use one of"),
        ([Turn("user", "\ud800"), Turn("assistant", "a", 1.0)], "terminated", "t: turn 1: text: half a surrogate pair"),
        ([Turn("user", "u")], "terminated", "t: no turn has role assistant"),
        ([Turn("user", "u"), Turn("assistant", "a", 1.0)], None, "t: ended is null; set terminated or truncated"),
    ],
)
def test_what_cannot_be_written(turns, ended, says):
    with pytest.raises(DataError, match=says):
        trajectory_to_row(Trajectory(turns, ended), "t")


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), "\ud800", object()])
def test_metadata_that_is_not_json(value):
    with pytest.raises(DataError, match="t: field metadata: not JSON"):
        json_line({"a": value}, "t")


def test_text_stays_readable():
    assert json_line({"a": "é\n"}) == '{"a": "é\\n"}'
    assert json.loads(json_line({"a": "é\n"})) == {"a": "é\n"}
