"""Who answers: the table of the closed world, or a language model, local or behind an OpenAI-compatible endpoint.

An oracle is called with all names of the item and a question, and returns the answer's text.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from typing import Any

from qsft import endpoint
from qsft.envs.twenty_questions.world import NO, YES, World
from qsft.errors import QSFTError

logger = logging.getLogger(__name__)

Oracle = Callable[[Sequence[str], str], str]

PROMPT = "The {kind} is: {name}\nAnswer this question about the {kind} with yes or no.\nQuestion: {question}\nAnswer:"
_VERDICT = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)


class OracleError(QSFTError, RuntimeError):
    """An oracle that should answer cannot."""


class TableOracle:
    """Answers from the table; "No." to whatever the table does not know."""

    def __init__(self, world: World) -> None:
        self.world = world

    def __call__(self, names: Sequence[str], question: str) -> str:
        move = self.world.move_of(question)
        if move is None:
            return NO
        return self.world.replies(move)[self.world.outcomes[move, self.world.index[names[0].lower()]]]


class ModelOracle:
    """Answers of a language model: "Yes." if its reply begins with yes, else "No.".

    A reply that begins with neither is warned of, once an oracle: a model that answers in sentences says no to everything.

    Answers are remembered, so the same question about the same item is asked once.

    Args:
        complete: gives a model's reply to a prompt; any callable, such as a local model's or an :class:`Endpoint`.
        kind: what the items are called in the prompt.
    """

    def __init__(self, complete: Callable[[str], str], kind: str = "object") -> None:
        self.complete = complete
        self.kind = kind
        self._answers: dict[tuple[str, str], str] = {}
        self._warned = False

    def __call__(self, names: Sequence[str], question: str) -> str:
        key = names[0], question
        if key not in self._answers:
            name = names[0] if len(names) == 1 else f"{names[0]} (also called {', '.join(names[1:])})"
            reply = self.complete(PROMPT.format(kind=self.kind, name=name, question=question))
            if not isinstance(reply, str):
                raise OracleError(f"oracle: its reply {reply!r:.60} is no text; return the model's reply")
            verdict = _VERDICT.match(reply)
            if verdict is None and not self._warned:
                self._warned = True
                logger.warning(
                    "oracle: the reply %r to %r begins with neither yes nor no and counts as no; more of them are not told",
                    reply[:60],
                    question[:60],
                )
            self._answers[key] = YES if verdict and verdict[1].lower() == "yes" else NO
        return self._answers[key]


class Endpoint:
    """A chat model behind an OpenAI-compatible endpoint (:class:`qsft.endpoint.Endpoint`), from prompt to reply.

    Args:
        settings: ``base_url``, ``model``, ``timeout``, ``retries``, ``api_key_env``.

    Raises:
        ConfigError: as there.
    """

    def __init__(self, **settings: Any) -> None:
        self.endpoint = endpoint.Endpoint(**settings)

    def __call__(self, prompt: str) -> str:
        """The reply.

        Raises:
            OracleError: the endpoint refuses this prompt.
            EndpointError: it is down or slow, or answers with something else: no other episode would fare better.
        """
        try:
            return self.endpoint.chat([{"role": "user", "content": prompt}], max_tokens=8, temperature=0)
        except endpoint.RefusedRequest as error:
            raise OracleError(f"oracle: {error}") from error
