"""A thought and an action in one text of an agent, ``Thought: ... Action: ...``, as ReAct has them (arXiv 2210.03629).

A model that is trained on such texts thinks aloud when it plays; environments with ``thoughts`` act on the action alone.
"""

from __future__ import annotations

import re

_THOUGHT = re.compile(r"\s*Thought:(.*?)\sAction:[ \t]*", re.DOTALL)


def with_thought(thought: str, action: str) -> str:
    """Both as one text; the thought on one line, since a line's end ends a turn in the text format.

    Args:
        thought: may be empty: then the action alone.
        action: as the environment reads it, its newline included where it has one.
    """
    said = " ".join(thought.split()).replace("Action:", "Action")
    return f"Thought: {said} Action: {action}" if said else action


def split_thought(text: str) -> tuple[str, str]:
    """The thought (empty where there is none) and the action: what stands behind the first ``Action:``."""
    found = _THOUGHT.match(text)
    return (found[1].strip(), text[found.end() :]) if found else ("", text)
