"""Thought and action in one text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qsft.data.thoughts import split_thought, with_thought

words = st.text(st.characters(codec="utf-8"), max_size=40)


@pytest.mark.parametrize(
    ("text", "thought", "action"),
    [
        ("Thought: it is near.\nAction: go to shelf 1\n", "it is near.", "go to shelf 1\n"),
        ("Thought: a\nb Action: look", "a\nb", "look"),
        ("search[Thought: x Action: y]", "", "search[Thought: x Action: y]"),
        ("Thought: search\nAction: search[Action: the comic]", "search", "search[Action: the comic]"),
        ("Thought: I think", "", "Thought: I think"),
        ("Thought: my reAction: none", "", "Thought: my reAction: none"),
        ("Action: look", "", "Action: look"),
        ("", "", ""),
    ],
)
def test_split(text: str, thought: str, action: str) -> None:
    assert split_thought(text) == (thought, action)


@given(words, words.map(str.lstrip))
def test_there_and_back(thought: str, action: str) -> None:
    text = with_thought(thought, action)
    said, done = split_thought(text)
    if thought.strip():
        assert done == action
        assert said.replace("Action", "Action:") == " ".join(thought.split()).replace("Action:", "Action").replace(
            "Action", "Action:"
        )
        assert "\n" not in text.removesuffix(action), "the action's newline alone ends the turn"
    else:
        assert text == action


def test_a_long_text_takes_no_time() -> None:
    assert split_thought("Thought: " + "\nAction" * 200_000) == ("", "Thought: " + "\nAction" * 200_000)
