"""A chat model behind an OpenAI-compatible endpoint: retries, timeouts, and a clear end when it is down."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from qsft.errors import ConfigError, QSFTError

DOWN_FOR = 60.0  # seconds
LONGEST_WAIT = 60.0  # seconds


class EndpointError(QSFTError, RuntimeError):
    """An endpoint that should answer cannot."""


class Endpoint:
    """A chat model behind an OpenAI-compatible endpoint.

    A request that fails or takes too long is repeated after 1, 2, 4, ... seconds, or when the server says
    (``Retry-After``), at most a minute later. Once all ``retries`` are spent the endpoint is taken for down: that call
    and every later one of the next minute raise at once, so that a long evaluation comes to its end.

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
            raise ConfigError(f"endpoint: base_url={base_url!r} is no http address, such as http://localhost:8000/v1")
        if not timeout > 0 or retries < 0:
            raise ConfigError(
                f"endpoint: timeout={timeout}, retries={retries}; give a time above 0, at least 0 retries"
            )
        self.url = base_url.rstrip("/") + "/chat/completions"
        self.model = model
        self.timeout = timeout
        self.retries = retries
        self._headers = {"Content-Type": "application/json"}
        if api_key_env is not None:
            if not os.environ.get(api_key_env):
                raise ConfigError(f"endpoint: environment variable {api_key_env} is not set; put the key there")
            self._headers["Authorization"] = f"Bearer {os.environ[api_key_env]}"
        self._down = ""  # the reason
        self._down_until = 0.0

    def chat(self, messages: Sequence[Mapping[str, Any]], **settings: Any) -> str:
        """The model's reply to a conversation.

        Args:
            messages: ``{"role": ..., "content": ...}`` each.
            settings: of the request: ``max_tokens``, ``temperature``, ...

        Raises:
            EndpointError: the endpoint is down, slow, refuses, or answers with something else.
        """
        if time.monotonic() >= self._down_until:
            data = json.dumps({"model": self.model, "messages": list(messages), **settings}).encode()
            wait = 0.0
            for attempt in range(self.retries + 1):
                if attempt:
                    time.sleep(min(max(2.0 ** (attempt - 1), wait), LONGEST_WAIT))
                wait = 0.0
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
                    wait = _seconds(error.headers.get("Retry-After"))
                except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
                    reason = f"{type(error).__name__}: {error}"
            self._down = " ".join(reason.split())[:200]
            self._down_until = time.monotonic() + DOWN_FOR
        raise EndpointError(
            f"{self.url} gives no answer ({self._down}); see that it runs and serves {self.model!r}, then repeat the "
            "command"
        )


def _seconds(header: str | None) -> float:
    """What ``Retry-After`` asks for; 0 where it names a date, or nothing."""
    try:
        return max(float(header or 0), 0.0)
    except ValueError:
        return 0.0
