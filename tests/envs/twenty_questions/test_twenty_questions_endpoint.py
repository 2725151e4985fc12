"""The oracle behind an endpoint (what can go wrong with one is in tests/test_endpoint.py)."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from qsft.endpoint import EndpointError
from qsft.envs import make
from qsft.envs.twenty_questions import Endpoint, OracleError
from qsft.evaluation.rollout import failed, rollout
from tests.fake_endpoint import Server, reply


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


def test_a_silent_oracle_says_so(server: Server, pauses: list[float]) -> None:
    server.answer = lambda number, body: (503, b"")
    with pytest.raises(EndpointError, match=r"http.*gives no answer \(HTTP 503"):
        Endpoint(base_url=server.url, model="m", retries=1)("prompt")
    assert len(server.requests) == 2
    server.answer = lambda number, body: (400, b"")
    with pytest.raises(OracleError, match=r"oracle: http.*refuses this request"):
        Endpoint(base_url=server.url, model="m")("prompt")


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
    games = rollout(Asker(), lambda: make("twenty-questions", oracle=options), 6, 0, batch_size=1, progress=False)
    played = []

    def keep(games: Iterable) -> None:
        for game in games:
            played.append(game)

    with pytest.raises(EndpointError, match="gives no answer"):
        keep(games)
    assert 0 < len(played) < 6 and not failed(played)
    assert all(game.total_return == -20 for game in played)
    assert len(server.requests) == limit + 5, "one round of retries, not one for each episode"
