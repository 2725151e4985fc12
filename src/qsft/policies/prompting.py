"""Prompting: a chat model plays without any training, told the rules and shown some of the best episodes.

Sources: Yao et al., "ReAct" (arXiv 2210.03629) for a thought before each action; Brown et al. (arXiv 2005.14165) for
plain few-shot prompting.
"""

from __future__ import annotations

import heapq
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from qsft.data.files import load_trajectories
from qsft.data.thoughts import split_thought, with_thought
from qsft.data.trajectory import Trajectory, Turn
from qsft.endpoint import RefusedRequest
from qsft.errors import ConfigError, UnansweredTurns
from qsft.policies.chats import Chat, Messages, picture_part

KINDS = ("react", "few-shot")
_OPENING = {
    "react": "You take part in an episode of turns: you are shown what the environment says and answer with your next "
    "action. Before each action, think. Always answer in exactly this form, with nothing behind it:\n"
    "Thought: what you know by now, and what it means for your next action\n"
    "Action: the action alone, on one line",
    "few-shot": "You take part in an episode of turns: you are shown what the environment says and answer with your next "
    "action. Answer with the action alone, on one line, and nothing else.",
}
_THOUGHT = re.compile(r"^[\s*]*thought[ \t*]*:[ \t*]*", re.IGNORECASE)
_ACTION = re.compile(r"^[ \t*]*action[ \t*]*:[ \t*]*(\S.*?)[ \t*]*$", re.IGNORECASE | re.MULTILINE)


class PromptingPolicy:
    """A chat model as a policy.

    The conversation is the episode: what the environment says as ``user``, the agent's turns as ``assistant``, with the
    thought that each had (``react``). Before it stands one ``system`` message: the form of an answer, the rules, and the
    example episodes.

    Args:
        kind: ``"react"`` (a thought, then the action) or ``"few-shot"`` (the action alone). It is the policy's name.
        chat: answers conversations, see :mod:`qsft.policies.chats`.
        instructions: the rules of the task, in words.
        examples: episodes that are shown.
        to_action: from one line of an answer to the text that the environment reads, such as
            :meth:`qsft.envs.base.Environment.typed_action`.
        keep_thoughts: of ``react``: what is said to the environment holds the thought as well
            (:mod:`qsft.data.thoughts`), so that a model can be trained on it; for environments with ``thoughts``.

    Raises:
        ConfigError: another kind.
    """

    def __init__(
        self,
        kind: str,
        chat: Chat,
        instructions: str = "",
        examples: Sequence[Trajectory] = (),
        to_action: Callable[[str], str] = lambda line: line + "\n",
        keep_thoughts: bool = False,
    ) -> None:
        if kind not in KINDS:
            raise ConfigError(f"prompting: {kind!r} is unknown; use one of {', '.join(KINDS)}.")
        self.name = kind
        self.system = "\n\n".join(filter(None, [_OPENING[kind], instructions.strip(), *map(self._example, examples)]))
        self._chat = chat
        self._to_action = to_action
        self._keep_thoughts = keep_thoughts
        self.seed(0)

    def seed(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._answers: dict[tuple[Any, ...], str] = {}

    def act(self, histories: Sequence[Trajectory]) -> list[str]:
        """The actions in the answers. An answer without one is the action, as it stands: the environment judges it.

        Raises:
            UnansweredTurns: the endpoint refuses some of the conversations.
            EndpointError: the endpoint is down.
        """
        if not histories:
            return []
        answers = self._chat([self._conversation(history) for history in histories], int(self._rng.integers(2**31)))
        actions: list[str] = []
        refused: dict[int, Exception] = {}
        for place, (history, answer) in enumerate(zip(histories, answers, strict=True)):
            if isinstance(answer, RefusedRequest):
                refused[place] = answer
                actions.append("")
            else:
                actions.append(self._action(answer))
                self._answers[(*_texts(history), actions[-1])] = answer
        if refused:
            raise UnansweredTurns([None if i in refused else action for i, action in enumerate(actions)], refused)
        return actions

    def _conversation(self, history: Trajectory) -> Messages:
        """The newest turns of one side are one message: chat templates want the roles to alternate."""
        messages: Messages = [{"role": "system", "content": self.system}]
        texts = _texts(history)
        for i, turn in enumerate(history.turns):
            if turn.is_agent:
                # what was said in this episode or in one that went the same way; else an action that we did not choose
                content = self._answers.get(texts[: i + 1]) or self._answer_form(turn.text.strip())
                messages.append({"role": "assistant", "content": content})
            elif messages[-1]["role"] == "user":
                messages[-1]["content"] = _joined(messages[-1]["content"], _content(turn))
            else:
                messages.append({"role": "user", "content": _content(turn)})
        if messages[-1]["role"] != "user":  # an environment that says nothing
            messages.append({"role": "user", "content": "Your turn."})
        return messages

    def _answer_form(self, action: str) -> str:
        thought, command = split_thought(action)
        if self.name == "few-shot":
            return command
        return f"Thought: {thought}\nAction: {command}" if thought else f"Action: {command}"

    def _action(self, answer: str) -> str:
        if self.name == "react":
            found = list(_ACTION.finditer(answer))
            if not found:
                return answer
            action = self._to_action(found[-1][1])
            thought = _THOUGHT.sub("", answer[: found[-1].start()])
            return with_thought(thought, action) if self._keep_thoughts else action
        line = answer.strip()
        return self._to_action(line) if line and "\n" not in line else answer

    def _example(self, trajectory: Trajectory) -> str:
        lines = [f"An example of a good episode (return {trajectory.total_return:g}):"]
        for turn in trajectory.turns:
            text = turn.text.strip()
            if not turn.is_agent:
                lines.append(f"Environment: {text}")
            else:
                lines.append(self._answer_form(text) if self.name == "react" else f"You: {self._answer_form(text)}")
        return "\n".join(lines)


def best_examples(path: str | os.PathLike[str], count: int) -> list[Trajectory]:
    """The episodes of a file with the highest returns, no two with the same turns; of equals, the first.

    Raises:
        ConfigError: a negative ``count``.
        DataError: an unusable file.
    """
    if count < 0:
        raise ConfigError(f"shots: {count}; give at least 0 examples.")
    distinct: dict[tuple[Any, ...], Trajectory] = {}
    for trajectory in load_trajectories(path):
        distinct.setdefault(_texts(trajectory), trajectory)
        if len(distinct) > 100 * (count + 1):  # memory stays flat
            distinct = {_texts(t): t for t in _best(distinct, count)}
    return _best(distinct, count)


def _best(distinct: dict[tuple[Any, ...], Trajectory], count: int) -> list[Trajectory]:
    return heapq.nlargest(count, distinct.values(), key=lambda trajectory: trajectory.total_return)


def _texts(trajectory: Trajectory) -> tuple[Any, ...]:
    """What was said and shown; of a turn without pictures the text."""
    return tuple((turn.text, turn.images) if turn.images else turn.text for turn in trajectory.turns)


def _content(turn: Turn) -> str | list[dict[str, Any]]:
    if not turn.images:
        return turn.text
    return [*map(picture_part, turn.images), *([{"type": "text", "text": turn.text}] if turn.text else [])]


def _joined(first: str | list[dict[str, Any]], second: str | list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    if isinstance(first, str) and isinstance(second, str):
        return first + second
    parts = ([{"type": "text", "text": part}] if isinstance(part, str) else part for part in (first, second))
    return [part for some in parts for part in some]
