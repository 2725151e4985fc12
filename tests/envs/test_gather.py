"""Gathering episodes of a policy that may fail and that does not repeat itself."""

from __future__ import annotations

import json

import pytest

from qsft.cli import main
from qsft.data import load_trajectories
from qsft.data.tokenize import TrajectoryTokenizer
from qsft.endpoint import EndpointError, RefusedRequest
from qsft.envs import make_policy
from qsft.envs.gather import gather
from qsft.errors import DataError, QSFTError, UnansweredTurns
from tests.data.families import chat as chat_tokenizer
from tests.fake_endpoint import reply, serve


class Mortal:
    """Plays like a scripted policy until its strength is spent."""

    name = "mortal"

    def __init__(self, turns: int) -> None:
        self.turns = turns
        self.policy = make_policy("wordle", "mixture")

    def seed(self, seed: int) -> None:
        self.policy.seed(seed)

    def act(self, histories):
        if self.turns == 0:
            raise EndpointError("no answer")
        self.turns -= 1
        return self.policy.act(histories)


def played(path):
    return [(game.metadata["episode"], game.metadata["secret"]) for game in load_trajectories(path)]


def test_what_was_played_is_kept_and_the_rest_follows(tmp_path):
    out = tmp_path / "games.jsonl"
    partial = tmp_path / "games.partial.jsonl"
    with pytest.raises(QSFTError, match=r"no answer \((\d+) of 20 episodes are kept in .*games.partial.jsonl; repeat"):
        gather("wordle", Mortal(12), 20, out, seed=3, places=4)
    kept = partial.read_text().splitlines()
    assert 0 < len(kept) < 20
    assert not out.exists()
    partial.write_text("\n".join(kept) + '\n{"messages": [')  # killed in the middle of a line
    gather("wordle", Mortal(1000), 20, out, seed=3, places=4)
    assert not partial.exists()
    assert {line for line in out.read_text().splitlines()} >= set(kept)
    gather("wordle", Mortal(1000), 20, tmp_path / "at-once.jsonl", seed=3, places=7)
    assert [number for number, _ in played(out)] == list(range(20))
    assert played(out) == played(tmp_path / "at-once.jsonl"), "the same secrets"


def test_fewer_than_there_are_lose_nothing(tmp_path):
    """Answers of a served model cost something."""
    out, partial = tmp_path / "games.jsonl", tmp_path / "games.partial.jsonl"
    with pytest.raises(QSFTError):
        gather("wordle", Mortal(12), 20, out, seed=3, places=4)
    kept = partial.read_text()
    most = 1 + max(json.loads(line)["metadata"]["episode"] for line in kept.splitlines())
    with pytest.raises(DataError, match=rf"partial.jsonl: \d+ episodes are there, .*: ask for at least {most}, or"):
        gather("wordle", Mortal(1000), most - 1, out, seed=3, places=4)
    assert partial.read_text() == kept
    assert gather("wordle", Mortal(1000), most, out, seed=3, places=4) == most


def test_pictures_are_written_beside_the_file(tmp_path):
    options = {"max_steps": 2, "image_size": 64}
    policy = make_policy("alfworld-image", "population", env_options=options)
    gather("alfworld-image", policy, 3, tmp_path / "games.jsonl", env_options=options)
    assert len(list((tmp_path / "games-images").iterdir())) == 9
    for game in load_trajectories(tmp_path / "games.jsonl"):
        assert [len(turn.images) for turn in game.turns] == [1, 0, 1, 0, 1]
    (tmp_path / "games.jsonl").unlink()
    with pytest.raises(DataError, match="games-images: exists already"):
        gather("alfworld-image", policy, 3, tmp_path / "games.jsonl", env_options=options)


class Choosy(Mortal):
    """Has no action for the episodes whose first guess is among some words."""

    def __init__(self, *words: str) -> None:
        super().__init__(10_000)
        self.words = words

    def act(self, histories):
        actions = super().act(histories)
        refused = {
            place: RefusedRequest("too long")
            for place, history in enumerate(histories)
            if any(turn.is_agent and turn.text in self.words for turn in history.turns)
        }
        if refused:
            raise UnansweredTurns([None if i in refused else text for i, text in enumerate(actions)], refused)
        return actions


def test_episodes_without_an_action_are_left_out(tmp_path, caplog):
    out = tmp_path / "games.jsonl"
    gather("wordle", Mortal(10_000), 60, tmp_path / "every.jsonl", seed=3, places=7)
    games = list(load_trajectories(tmp_path / "every.jsonl"))
    first = [next(game.agent_turns).text for game in games]
    rare = {word for word in first if first.count(word) == 1}
    count = gather("wordle", Choosy(min(rare)), 60, out, seed=3, places=7)
    assert 54 <= count == len(played(out)) < 60
    assert "failed: RefusedRequest: too long" in caplog.text
    out.unlink()
    with pytest.raises(
        QSFTError, match=r"\d+ episodes failed, the first with RefusedRequest: too long \(\d+ of 60 epis"
    ):
        gather("wordle", Choosy(*rare), 60, out, seed=3, places=7)
    assert gather("wordle", Mortal(10_000), 60, out, seed=3, places=7) == 60
    assert [number for number, _ in played(out)] == list(range(60))


def test_a_file_of_something_else(tmp_path):
    out = tmp_path / "games.jsonl"
    with pytest.raises(QSFTError):
        gather("wordle", Mortal(12), 20, out, places=4)
    words = {"env_options": {"words": ["crane", "brace"]}}
    for changed in ({"seed": 4}, {"metadata": {"model": "other"}}, words):
        with pytest.raises(DataError, match="partial.jsonl: row 1: not what this command gathers"):
            gather("wordle", Mortal(12), 20, out, **changed)
    out.write_text("")
    with pytest.raises(DataError, match="exists already"):
        gather("wordle", Mortal(12), 20, out)
    with pytest.raises(DataError, match="cannot write format .csv"):
        gather("wordle", Mortal(12), 20, tmp_path / "games.csv")


def test_react_shops_and_its_thoughts_can_be_trained_on(tmp_path, capsys, monkeypatch):
    """A served model that searches, opens the first product and buys it; it dies at the fourth episode, once."""
    pytest.importorskip("bm25s")
    monkeypatch.setattr("qsft.endpoint.time.sleep", lambda seconds: None)

    def answer(number, body):
        if number == 10:
            return 401, b""
        page = body["messages"][-1]["content"]
        if page.startswith("find me") or "looking for" in page or "i need" in page or "help me buy" in page:
            return 200, reply("Thought: I have to search\nfor it.\nAction: search[travel mug]")
        return 200, reply("Thought: good.\nAction: click[Buy Now]" if "item" not in page else "Action: click[item 1]")

    out = tmp_path / "shopping.jsonl"
    command = ["collect", "webshop", "--policy", "react", "--model", "small", "--episodes", "6", "--out", str(out)]
    command += ["--env-option", "observation=words", "--env-option", "products=2000", "--retries", "0"]
    with serve() as server:
        server.answer = answer
        command += ["--endpoint", server.url]
        assert main(command) == 2
        assert "HTTP 401" in (error := capsys.readouterr().err)
        assert "of 6 episodes are kept" in error
        assert "Traceback" not in error
        assert main(command) == 0
    games = list(load_trajectories(out))
    tokenizer = TrajectoryTokenizer(chat_tokenizer("chatml"))
    assert [game.metadata["episode"] for game in games] == list(range(6))
    for game in games:
        said = [turn.text for turn in game.agent_turns]
        assert said[0] == "Thought: I have to search for it. Action: search[ travel mug ]\n"
        assert said[1:] == ["click[ item 1 ]\n", "Thought: good. Action: click[ buy now ]\n"]
        assert game.turns[2].text.startswith("page 1 of 50 results"), "the shop understood what was said"
        assert (game.metadata["model"], game.metadata["policy"], game.ended) == ("small", "react", "terminated")
        row = tokenizer(game)
        said_ids = [token for token, agent in zip(row["input_ids"], row["agent_mask"], strict=True) if agent]
        assert "Thought: good. Action: click[ buy now ]" in tokenizer.tokenizer.decode(said_ids)
    first = out.read_text().splitlines(keepends=True)[0]
    assert json.loads(first)["metadata"]["env"] == "webshop"
    assert json.loads(first)["metadata"]["temperature"] == 0, "noted though it was not given: another may not go on"
    out.unlink()
    out.with_suffix(".partial.jsonl").write_text(first)
    assert main([*command, "--temperature", "0.9"]) == 2
    assert "row 1: not what this command gathers" in capsys.readouterr().err
