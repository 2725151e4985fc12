"""The oracle behind an endpoint: a served model, and everything that can go wrong with one."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from qsft.envs import make
from qsft.envs.twenty_questions import Endpoint, OracleError, oracles
from qsft.evaluation.rollout import failed, rollout

Answer = Callable[[int, dict], tuple[int, bytes]]


class Server:
    """An OpenAI-compatible endpoint on this machine that answers as a test wants."""

    def __init__(self) -> None:
        self.requests: list[dict] = []
        self.headers: list[str | None] = []
        self.answer: Answer = lambda number, body: (200, reply("Yes."))
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append({"path": self.path, **body})
                outer.headers.append(self.headers.get("Authorization"))
                status, data = outer.answer(len(outer.requests), body)
                try:
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:
                    pass  # the client went away, as the test of slowness wants

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"


def reply(text: object) -> bytes:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.http.serve_forever, daemon=True)
    thread.start()
    yield made
    made.http.shutdown()
    made.http.server_close()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between attempts, which take no time here."""
    slept: list[float] = []
    monkeypatch.setattr(oracles.time, "sleep", slept.append)
    return slept


def test_a_game_against_a_served_model(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QSFT_TEST_KEY", "secret")
    options = {"base_url": server.url + "/", "model": "small", "api_key_env": "QSFT_TEST_KEY"}
    env = make("twenty-questions", oracle=options)
    again = make("twenty-questions", oracle=options)
    server.answer = lambda number, body: (200, reply("yes" if "cat?" in body["messages"][0]["content"] else "no"))
    env.reset(options={"object": "cat"})
    assert env.step("Is it a dog?\n")[:3] == ("No.\n", -1.0, False)
    assert env.step("not a question\n")[:3] == ("No.\n", -1.0, False)
    assert env.step("Is it a cat?\n")[:3] == ("Yes.\n", 0.0, True)
    again.reset(options={"object": "cat"})
    again.step("Is it a dog?\n")
    assert len(server.requests) == 2, "environments share what was answered; malformed questions are not asked"
    sent = server.requests[0]
    assert (sent["path"], sent["model"], sent["temperature"]) == ("/v1/chat/completions", "small", 0)
    assert server.headers == ["Bearer secret"] * 2
    assert "Is it a dog?" in sent["messages"][0]["content"]
    assert "cat" in sent["messages"][0]["content"]


def test_it_tries_again_and_goes_on(server: Server, pauses: list[float]) -> None:
    troubles = [(500, b""), (429, b""), (200, b"not json"), (200, reply("Yes."))]
    server.answer = lambda number, body: troubles[number - 1]
    assert Endpoint(server.url, "m")("prompt") == "Yes."
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
    with pytest.raises(OracleError, match=reason) as caught:
        Endpoint(server.url, "m", retries=2)("prompt")
    assert "\n" not in str(caught.value)
    assert len(server.requests) == 3


def test_a_refusal_is_not_repeated(server: Server, pauses: list[float]) -> None:
    server.answer = lambda number, body: (401, b"")
    with pytest.raises(OracleError, match="HTTP 401"):
        Endpoint(server.url, "m")("prompt")
    assert (len(server.requests), pauses) == (1, [])


def test_a_slow_endpoint_is_given_up(server: Server, pauses: list[float]) -> None:
    release = threading.Event()
    server.answer = lambda number, body: (release.wait(20), (200, reply("Yes.")))[1]
    start = time.perf_counter()
    with pytest.raises(OracleError, match=r"gives no answer .*timed out.*see that it runs"):
        Endpoint(server.url, "m", timeout=0.2, retries=1)("prompt")
    release.set()
    assert time.perf_counter() - start < 15


def test_once_down_it_fails_at_once_for_a_minute(
    server: Server, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answer = lambda number, body: (503, b"")
    endpoint = Endpoint(server.url, "m", retries=2)
    now = time.monotonic()
    for _ in range(3):
        with pytest.raises(OracleError, match="HTTP 503"):
            endpoint("prompt")
    assert len(server.requests) == 3
    server.answer = lambda number, body: (200, reply("Yes."))
    monkeypatch.setattr(oracles.time, "monotonic", lambda: now + 100)
    assert endpoint("prompt") == "Yes."


def test_an_evaluation_with_a_dead_endpoint_ends_and_keeps_what_it_has(server: Server, pauses: list[float]) -> None:
    class Asker:
        name = "asker"

        def seed(self, seed: int) -> None:
            pass

        def act(self, histories: list) -> list[str]:
            return [f"Is it {len(history.turns)}?\n" for history in histories]

    limit = 40
    server.answer = lambda number, body: (200, reply("No.")) if number <= limit else (503, b"")
    options = {"base_url": server.url, "model": "dies"}
    played = list(
        rollout(Asker(), lambda: make("twenty-questions", oracle=options), 6, 0, batch_size=1, progress=False)
    )
    assert len(played) == 6
    broken = failed(played)
    assert 0 < len(broken) < 6
    assert all("gives no answer" in game.metadata["error"] for game in broken)
    assert all(game.total_return == -20 for game in played if game not in broken)
    assert len(server.requests) == limit + 5, "one round of retries, not one for each episode"
