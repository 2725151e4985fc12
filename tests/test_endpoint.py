"""A served model, and everything that can go wrong with one."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable

import pytest

from qsft import endpoint as endpoint_module
from qsft.endpoint import Endpoint, EndpointError, RefusedRequest
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
        ({"retries": 1.5}, "retries=1.5"),
        ({"timeout": float("inf")}, "timeout=inf"),
        ({"timeout": 1e12}, "timeout=1000000000000.0"),
        ({"timeout": "5"}, "timeout='5'"),
        ({"base_url": 5}, "base_url=5 is no http address"),
        ({"base_url": "http://localhost:notaport/v1"}, "is no http address"),
        ({"base_url": "http://local host/v1"}, "is no http address"),
        ({"base_url": "http://local\nhost/v1"}, "is no http address"),
        ({"base_url": "http:///v1"}, "is no http address"),
        ({"model": 5}, "model=5"),
        ({"api_key_env": "QSFT_NO_SUCH_KEY"}, "environment variable QSFT_NO_SUCH_KEY is not set"),
    ],
)
def test_bad_settings(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Endpoint(**{"base_url": "http://localhost/v1", "model": "m", **settings})


@pytest.mark.parametrize("key", ["two words", "schlüssel", "a\nb"])
def test_a_key_that_is_none_is_not_told(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QSFT_TEST_KEY", key)
    with pytest.raises(ConfigError, match="QSFT_TEST_KEY holds no key") as caught:
        Endpoint("http://localhost/v1", "m", api_key_env="QSFT_TEST_KEY")
    assert key not in str(caught.value)


def test_a_key_with_a_line_end(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QSFT_TEST_KEY", "secret\r\n")
    assert Endpoint(server.url, "m", api_key_env="QSFT_TEST_KEY").chat(PROMPT) == "Yes."
    assert server.headers == ["Bearer secret"]


def test_an_answer_without_a_text_is_of_that_request_alone(server: Server) -> None:
    nothing = b'{"choices": [{"message": {"role": "assistant", "content": null, "refusal": "no"}}]}'
    server.answer = lambda number, body: (200, nothing) if number == 1 else (200, reply("Yes."))
    asked = Endpoint(server.url, "m")
    with pytest.raises(RefusedRequest, match="answers without text"):
        asked.chat(PROMPT)
    assert asked.chat(PROMPT) == "Yes." and len(server.requests) == 2


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


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (
            b'{"error": {"message": "Unsupported parameter:\\n use max_completion_tokens"}}',
            ": Unsupported parameter: use max",
        ),
        (b'{"error": "no"}', r': \{"error": "no"\}'),
        (b"<h1>Bad</h1>\n\xff", ": <h1>Bad</h1>"),
        (b"x" * 10_000, ": x{200}\\)"),
        (b"", r"Bad Request\)"),
    ],
)
@pytest.mark.parametrize("status", [400, 401])
def test_what_the_endpoint_says_of_an_error_is_told(server: Server, status: int, data: bytes, told: str) -> None:
    server.answer = lambda number, body: (status, data)
    told = told.replace("Bad Request", "Bad Request" if status == 400 else "Unauthorized")
    with pytest.raises(EndpointError, match=f"HTTP {status} .*{told}") as caught:
        Endpoint(server.url, "m").chat(PROMPT)
    assert "\n" not in str(caught.value)


def test_a_slow_endpoint_is_given_up(server: Server, pauses: list[float]) -> None:
    release = threading.Event()
    server.answer = lambda number, body: (release.wait(20), (200, reply("Yes.")))[1]
    start = time.perf_counter()
    with pytest.raises(EndpointError, match=r"gives no answer .*timed out.*see that it runs"):
        Endpoint(server.url, "m", timeout=0.2, retries=1).chat(PROMPT)
    release.set()
    assert time.perf_counter() - start < 15


class Raw:
    """Answers each connection with bytes, and ends it."""

    def __init__(self, answer: Callable[[socket.socket], None]) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listening.getsockname()[1]}/v1"
        self.asked = 0
        self.answer = answer
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            with connection:
                self.asked += 1
                connection.recv(1 << 16)
                with contextlib.suppress(OSError):  # nobody listens any more, as the test of slowness wants
                    self.answer(connection)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(1 << 16):  # what is unread when it is closed would be a reset
                        pass


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n" + reply("Yes."), "IncompleteRead"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nYes", "IncompleteRead"),
        (b"hello\r\n\r\n", "BadStatusLine"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000, "LineTooLong"),
    ],
)
def test_replies_that_are_cut_off_or_garbled_are_asked_for_again(pauses: list[float], data: bytes, reason: str) -> None:
    raw = Raw(lambda connection: connection.sendall(data))
    with raw.listening, pytest.raises(EndpointError, match=reason) as caught:
        Endpoint(raw.url, "m", retries=2).chat(PROMPT)
    assert raw.asked == 3 and "\n" not in str(caught.value)


def test_an_answer_that_trickles_is_given_up(pauses: list[float]) -> None:
    def trickle(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")
        for _ in range(200):
            connection.sendall(b" ")
            threading.Event().wait(0.1)  # time.sleep is a stand-in here

    raw = Raw(trickle)
    start = time.perf_counter()
    with raw.listening, pytest.raises(EndpointError, match="TimeoutError: not through after 0.5 s"):
        Endpoint(raw.url, "m", timeout=0.5, retries=0).chat(PROMPT)
    assert time.perf_counter() - start < 10


def test_a_request_that_is_refused_says_nothing_of_others(server: Server, pauses: list[float]) -> None:
    server.answer = lambda number, body: (400, b"") if "dog" in str(body) else (200, reply("Yes."))
    endpoint = Endpoint(server.url, "m")
    for _ in range(2):
        with pytest.raises(RefusedRequest, match="refuses this request .HTTP 400"):
            endpoint.chat([{"role": "user", "content": "Is it a dog?"}])
        assert endpoint.chat(PROMPT) == "Yes."
    assert (len(server.requests), pauses) == (4, [])


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
