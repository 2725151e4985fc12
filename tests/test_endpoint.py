"""A served model, and everything that can go wrong with one."""

from __future__ import annotations

import threading
import time

import pytest

from qsft import endpoint as endpoint_module
from qsft.endpoint import Endpoint, EndpointError
from qsft.errors import ConfigError
from tests.fake_endpoint import Server, reply

PROMPT = [{"role": "user", "content": "Is it a cat?"}]


def test_what_is_sent(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QSFT_TEST_KEY", "secret")
    assert Endpoint(server.url + "/", "small", api_key_env="QSFT_TEST_KEY").chat(PROMPT, max_tokens=8) == "Yes."
    assert server.requests == [{"path": "/v1/chat/completions", "model": "small", "messages": PROMPT, "max_tokens": 8}]
    assert server.headers == ["Bearer secret"]
    Endpoint(server.url, "small").chat(PROMPT)
    assert server.headers[1] is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base_url": "localhost:8000"}, "base_url='localhost:8000' is no http address"),
        ({"timeout": 0}, "timeout=0"),
        ({"retries": -1}, "retries=-1"),
        ({"api_key_env": "QSFT_NO_SUCH_KEY"}, "environment variable QSFT_NO_SUCH_KEY is not set"),
    ],
)
def test_bad_settings(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Endpoint(**{"base_url": "http://localhost/v1", "model": "m", **settings})


@pytest.mark.parametrize(
    ("asked", "waits"), [("7", [7, 7]), ("1.5", [1.5, 2]), ("9999", [60, 60]), ("Sat, 1 Jan", [1, 2])]
)
def test_it_waits_as_long_as_the_server_says(
    server: Server, pauses: list[float], asked: str, waits: list[float]
) -> None:
    server.answer_headers = {"Retry-After": asked}
    server.answer = lambda number, body: (429, b"") if number < 3 else (200, reply("Yes."))
    assert Endpoint(server.url, "m").chat(PROMPT) == "Yes."
    assert pauses == waits


def test_it_tries_again_and_goes_on(server: Server, pauses: list[float]) -> None:
    troubles = [(500, b""), (429, b""), (200, b"not json"), (200, reply("Yes."))]
    server.answer = lambda number, body: troubles[number - 1]
    assert Endpoint(server.url, "m").chat(PROMPT) == "Yes."
    assert pauses == [1, 2, 4]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"not json", "JSONDecodeError"),
        (b"[]", "TypeError"),
        (b"{}", "KeyError: 'choices'"),
        (b'{"choices": []}', "IndexError"),
        (reply(None), "content is NoneType, not text"),
    ],
)
def test_answers_that_are_none(server: Server, pauses: list[float], data: bytes, reason: str) -> None:
    server.answer = lambda number, body: (200, data)
    with pytest.raises(EndpointError, match=reason) as caught:
        Endpoint(server.url, "m", retries=2).chat(PROMPT)
    assert "\n" not in str(caught.value)
    assert len(server.requests) == 3


def test_a_refusal_is_not_repeated(server: Server, pauses: list[float]) -> None:
    server.answer = lambda number, body: (401, b"")
    with pytest.raises(EndpointError, match="HTTP 401"):
        Endpoint(server.url, "m").chat(PROMPT)
    assert (len(server.requests), pauses) == (1, [])


def test_a_slow_endpoint_is_given_up(server: Server, pauses: list[float]) -> None:
    release = threading.Event()
    server.answer = lambda number, body: (release.wait(20), (200, reply("Yes.")))[1]
    start = time.perf_counter()
    with pytest.raises(EndpointError, match=r"gives no answer .*timed out.*see that it runs"):
        Endpoint(server.url, "m", timeout=0.2, retries=1).chat(PROMPT)
    release.set()
    assert time.perf_counter() - start < 15


def test_once_down_it_fails_at_once_for_a_minute(
    server: Server, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answer = lambda number, body: (503, b"")
    endpoint = Endpoint(server.url, "m", retries=2)
    now = time.monotonic()
    for _ in range(3):
        with pytest.raises(EndpointError, match="HTTP 503"):
            endpoint.chat(PROMPT)
    assert len(server.requests) == 3
    server.answer = lambda number, body: (200, reply("Yes."))
    monkeypatch.setattr(endpoint_module.time, "monotonic", lambda: now + 100)
    assert endpoint.chat(PROMPT) == "Yes."
