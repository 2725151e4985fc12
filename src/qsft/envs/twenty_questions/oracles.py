"""Who answers: the table of the closed world, or a language model, local or behind an OpenAI-compatible endpoint.

An oracle is called with all names of the item and a question, and returns the answer's text.
"""

from __future__ import annotations

import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence

from qsft.envs.twenty_questions.world import NO, YES, World
from qsft.errors import ConfigError, QSFTError

Oracle = Callable[[Sequence[str], str], str]

PROMPT = "The {kind} is: {name}\nAnswer this question about the {kind} with yes or no.\nQuestion: {question}\nAnswer:"
_DOWN_FOR = 60.0  # seconds
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

    Answers are remembered, so the same question about the same item is asked once.

    Args:
        complete: gives a model's reply to a prompt; any callable, such as a local model's or an :class:`Endpoint`.
        kind: what the items are called in the prompt.
    """

    def __init__(self, complete: Callable[[str], str], kind: str = "object") -> None:
        self.complete = complete
        self.kind = kind
        self._answers: dict[tuple[str, str], str] = {}

    def __call__(self, names: Sequence[str], question: str) -> str:
        key = names[0], question
        if key not in self._answers:
            name = names[0] if len(names) == 1 else f"{names[0]} (also called {', '.join(names[1:])})"
            reply = self.complete(PROMPT.format(kind=self.kind, name=name, question=question))
            verdict = _VERDICT.match(reply)
            self._answers[key] = YES if verdict and verdict[1].lower() == "yes" else NO
        return self._answers[key]


class Endpoint:
    """A chat model behind an OpenAI-compatible endpoint, as a callable from prompt to reply.

    A request that fails or takes too long is repeated after 1, 2, 4, ... seconds. Once all ``retries`` are spent the
    endpoint is taken for down: that call and every later one of the next minute raise at once, so that a long
    evaluation comes to its end and keeps what it has.

    Args:
        base_url: up to and without ``/chat/completions``, for instance ``http://localhost:8000/v1``.
        model: the model's name there.
        timeout: seconds a request may take.
        retries: how often a failed request is repeated.
        api_key_env: name of the environment variable that holds the key, if one is needed.

    Raises:
        ConfigError: an address that is no http(s) address, a value out of range, or an environment variable that is
            not set.
    """

    def __init__(
        self, base_url: str, model: str, timeout: float = 60.0, retries: int = 4, api_key_env: str | None = None
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise ConfigError(f"oracle: base_url={base_url!r} is no http address, such as http://localhost:8000/v1")
        if not timeout > 0 or retries < 0:
            raise ConfigError(f"oracle: timeout={timeout}, retries={retries}; give a time above 0, at least 0 retries")
        self.url = base_url.rstrip("/") + "/chat/completions"
        self.model = model
        self.timeout = timeout
        self.retries = retries
        self._headers = {"Content-Type": "application/json"}
        if api_key_env is not None:
            if not os.environ.get(api_key_env):
                raise ConfigError(f"oracle: environment variable {api_key_env} is not set; put the key there")
            self._headers["Authorization"] = f"Bearer {os.environ[api_key_env]}"
        self._down = ""  # the reason
        self._down_until = 0.0

    def __call__(self, prompt: str) -> str:
        """The reply.

        Raises:
            OracleError: the endpoint is down, slow, refuses, or answers with something else.
        """
        if time.monotonic() >= self._down_until:
            body = {"model": self.model, "messages": [{"role": "user", "content": prompt}]}
            data = json.dumps({**body, "max_tokens": 8, "temperature": 0}).encode()
            for attempt in range(self.retries + 1):
                if attempt:
                    time.sleep(2 ** (attempt - 1))
                try:
                    request = urllib.request.Request(self.url, data, self._headers)
                    with urllib.request.urlopen(request, timeout=self.timeout) as response:
                        reply = json.load(response)["choices"][0]["message"]["content"]
                    if not isinstance(reply, str):
                        raise TypeError(f"content is {type(reply).__name__}, not text")
                    return reply
                except urllib.error.HTTPError as error:
                    reason = f"HTTP {error.code} {error.reason}"
                    if 400 <= error.code < 500 and error.code not in (408, 429):
                        break  # asking again will not help
                except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
                    reason = f"{type(error).__name__}: {error}"
            self._down = " ".join(reason.split())[:200]
            self._down_until = time.monotonic() + _DOWN_FOR
        raise OracleError(
            f"oracle: {self.url} gives no answer ({self._down}); see that it runs and serves {self.model!r}, then "
            "repeat the command"
        )
