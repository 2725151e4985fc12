"""A chat model behind an OpenAI-compatible endpoint: retries, timeouts, and a clear end when it is down."""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from qsft.errors import ConfigError, QSFTError

DOWN_FOR = 60.0  # seconds
LONGEST_WAIT = 60.0  # seconds
LONGEST_TIMEOUT = 86_400.0  # seconds
_LONGEST_REPLY = 10_000_000  # bytes
_LONGEST_EXPLANATION = 100_000  # bytes, of an error
#: of these the request is the cause, such as a conversation that is too long, and not the endpoint
_REFUSALS = (400, 413, 422)


class EndpointError(QSFTError, RuntimeError):
    """An endpoint that should answer cannot."""


class RefusedRequest(EndpointError):
    """An endpoint answers others and refuses this one, for instance because it is too long."""


class Endpoint:
    """A chat model behind an OpenAI-compatible endpoint.

    A request that fails or takes too long is repeated after 1, 2, 4, ... seconds, or when the server says
    (``Retry-After``), at most a minute later. Once all ``retries`` are spent the endpoint is taken for down: that call
    and every later one of the next minute raise at once, so that a long evaluation comes to its end. A request that the
    endpoint refuses for what is in it (HTTP 400, 413, 422) is not repeated, and says nothing of others.

    Args:
        base_url: up to and without ``/chat/completions``, for instance ``http://localhost:8000/v1``.
        model: the model's name there.
        timeout: seconds a request may take, its whole answer included; at most a day.
        retries: how often a failed request is repeated.
        api_key_env: name of the environment variable that holds the key, if one is needed.

    Raises:
        ConfigError: an address that is no http(s) address, a value out of range, or an environment variable that is
            not set.
    """

    def __init__(
        self, base_url: str, model: str, timeout: float = 60.0, retries: int = 4, api_key_env: str | None = None
    ) -> None:
        if not _is_address(base_url):
            raise ConfigError(
                f"endpoint: base_url={base_url!r:.80} is no http address, such as http://localhost:8000/v1"
            )
        if not isinstance(model, str) or not model:
            raise ConfigError(f"endpoint: model={model!r:.60}; give the model's name there")
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= LONGEST_TIMEOUT:
            raise ConfigError(
                f"endpoint: timeout={timeout!r:.60}; give seconds above 0 and at most {LONGEST_TIMEOUT:.0f}"
            )
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            raise ConfigError(f"endpoint: retries={retries!r:.60}; give a whole number of at least 0")
        self.url = base_url.rstrip("/") + "/chat/completions"
        self.model = model
        self.timeout = timeout
        self.retries = retries
        self._headers = {"Content-Type": "application/json"}
        if api_key_env is not None:
            key = os.environ.get(api_key_env, "").strip()
            if not key:
                raise ConfigError(f"endpoint: environment variable {api_key_env} is not set; put the key there")
            if not (key.isascii() and key.isprintable() and " " not in key):  # and no later error may quote it
                raise ConfigError(
                    f"endpoint: environment variable {api_key_env} holds no key: it has spaces in it, or other marks"
                )
            self._headers["Authorization"] = f"Bearer {key}"
        self._down = ""  # the reason
        self._down_until = 0.0

    def chat(self, messages: Sequence[Mapping[str, Any]], **settings: Any) -> str:
        """The model's reply to a conversation.

        Args:
            messages: ``{"role": ..., "content": ...}`` each.
            settings: of the request: ``max_tokens``, ``temperature``, ...

        Raises:
            RefusedRequest: it refuses this conversation.
            EndpointError: the endpoint is down, slow, refuses all, or answers with something else.
        """
        if time.monotonic() >= self._down_until:
            data = json.dumps({"model": self.model, "messages": list(messages), **settings}).encode()
            wait = 0.0
            for attempt in range(self.retries + 1):
                if attempt:
                    time.sleep(min(max(2.0 ** (attempt - 1), wait), LONGEST_WAIT))
                wait = 0.0
                try:
                    reply = json.loads(self._answer(data))["choices"][0]["message"]["content"]
                    if reply is None:  # it answers, with something else than a text
                        raise RefusedRequest(
                            f"{self.url} answers without text: {self.model!r} refuses, or thinks for longer than max_tokens"
                        )
                    if not isinstance(reply, str):
                        raise TypeError(f"content is {type(reply).__name__}, not text")
                    return reply
                except urllib.error.HTTPError as error:
                    reason = f"HTTP {error.code} {error.reason}{_explanation(error)}"
                    if error.code in _REFUSALS:
                        raise RefusedRequest(
                            f"{self.url} refuses this request ({reason}); it may be too long for {self.model!r}"
                        ) from None
                    if 400 <= error.code < 500 and error.code not in (408, 429):
                        break  # asking again will not help
                    wait = _seconds(error.headers.get("Retry-After"))
                except (OSError, http.client.HTTPException, ValueError, KeyError, IndexError, TypeError) as error:
                    reason = f"{type(error).__name__}: {error}"
            self._down = " ".join(reason.split())[:300]
            self._down_until = time.monotonic() + DOWN_FOR
        raise EndpointError(
            f"{self.url} gives no answer ({self._down}); see that it runs and serves {self.model!r}, then repeat the "
            "command"
        )

    def _answer(self, data: bytes) -> bytes:
        """The body of the answer. The timeout of a socket is that of each read: a slow one could go on for ever."""
        deadline = time.monotonic() + self.timeout
        request = urllib.request.Request(self.url, data, self._headers)
        with urllib.request.urlopen(request, timeout=self.timeout) as response:
            parts: list[bytes] = []
            size = 0
            while part := response.read1(1 << 16):
                parts.append(part)
                size += len(part)
                if time.monotonic() > deadline:
                    raise TimeoutError(f"not through after {self.timeout:g} s")
                if size > _LONGEST_REPLY:
                    raise ValueError(f"an answer of more than {_LONGEST_REPLY} bytes")
            if response.length:
                raise http.client.IncompleteRead(b"".join(parts), response.length)
        return b"".join(parts)


def _is_address(text: Any) -> bool:
    if not isinstance(text, str) or not text.startswith(("http://", "https://")) or not text.isprintable():
        return False
    try:
        parts = urlsplit(text)
        return bool(parts.hostname) and " " not in text and parts.port != 0
    except ValueError:
        return False


def _explanation(error: urllib.error.HTTPError) -> str:
    """What the endpoint says of an error, after a colon; nothing where it says nothing."""
    try:
        body = error.read(_LONGEST_EXPLANATION).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return ""
    try:
        said = json.loads(body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        said = body
    text = " ".join(str(said).split())[:200]
    return f": {text}" if text else ""


def _seconds(header: str | None) -> float:
    """What ``Retry-After`` asks for; 0 where it names a date, or nothing."""
    try:
        return max(float(header or 0), 0.0)
    except ValueError:
        return 0.0
