"""Scripted players: their names, their strength, and one player a game."""

from __future__ import annotations

from collections import Counter
from typing import Any

import chess
import numpy as np
import pytest

from qsft.data.trajectory import Trajectory, Turn
from qsft.envs import make, make_policy, scripted_policies
from qsft.envs.chess import Chess
from qsft.envs.chess.collect import ChessPlayer
from qsft.envs.chess.opponents import Careless
from qsft.envs.chess.policies import CarelessPlayers, ChessPolicy, Component, MixturePolicy, StockfishPolicy
from qsft.envs.chess.texts import action_text, observation_text
from qsft.envs.rollout import rollout
from qsft.errors import ConfigError, DataError
from qsft.policies.base import Policy

POLICIES = ["careless", "mixture", "random", "stockfish", "stockfish-1350", "stockfish-1700", "stockfish-2000"]


def history(fen: str = chess.STARTING_FEN) -> Trajectory:
    return Trajectory([Turn("user", observation_text(fen))])


class Counting(ChessPolicy):
    """A player that says how many games were begun before its own, as a move of a pawn."""

    name = "counting"

    def begin(self, rng: np.random.Generator) -> Any:
        number = self.begun = getattr(self, "begun", -1) + 1
        return lambda board: chess.Move.from_uci(f"{'abcdefgh'[number]}2{'abcdefgh'[number]}3")


def test_names_and_contract() -> None:
    for name in ("chess", "endgames"):
        assert scripted_policies(name) == POLICIES
        for policy_name in POLICIES:
            policy = make_policy(name, policy_name)
            assert isinstance(policy, Policy)
            assert policy.name == policy_name
            assert policy.act([]) == []
    assert make_policy("chess", "stockfish-1700", careless=0.25).name == "stockfish-1700-careless-0.25"
    assert make_policy("chess", "stockfish", depth=3).name == "stockfish-depth-3"


def test_each_game_keeps_its_player() -> None:
    policy = Counting(make("chess"))
    games = [history() for _ in range(3)]
    assert policy.act(games) == ["a 3\n", "b 3\n", "c 3\n"]
    assert policy.act(games) == ["a 3\n", "b 3\n", "c 3\n"]
    assert policy.act([games[2], games[0]]) == ["c 3\n", "a 3\n"], "known by the history, not by its place"
    assert policy.act([games[1], history()]) == ["d 3\n", "e 3\n"], "what was left out is forgotten; equal is not same"
    policy.seed(0)
    assert policy.act([games[1]]) == ["f 3\n"]


def test_random_moves_are_legal_and_all_come_up() -> None:
    policy = make_policy("chess", "random", seed=1)
    fen = "r3k2r/pPpp1ppp/8/4pP2/8/8/1PP1PPPP/R3K2R w KQkq e6 0 20"
    expected = {action_text(chess.Board(fen).san(move)) for move in chess.Board(fen).legal_moves}
    assert {"O - O\n", "f x e 6\n", "b x a 8 = N\n"} <= expected
    counts = Counter(action for _ in range(20) for action in policy.act([history(fen) for _ in range(50)]))
    assert set(counts) == expected
    assert max(counts.values()) < 3 * min(counts.values()) + 30
    policy.seed(1)
    first = policy.act([history(fen) for _ in range(9)])
    policy.seed(1)
    assert policy.act([history(fen) for _ in range(9)]) == first


def test_a_finished_first_position_has_no_good_answer() -> None:
    for fen in ("8/8/8/8/8/1k6/1q6/K7 w - - 0 1", "8/8/8/8/8/1q6/8/K1k5 w - - 0 1"):
        assert make_policy("chess", "random").act([history(fen)]) == ["- -\n"]


def test_a_history_without_a_position() -> None:
    with pytest.raises(DataError, match="cannot read the position 'Wordle:"):
        make_policy("chess", "random").act([Trajectory([Turn("user", "Wordle:\n")])])


@pytest.mark.parametrize(
    ("policy", "options", "message"),
    [
        ("stockfish-1350", {"careless": 1.5}, "careless=1.5 is not a probability"),
        ("stockfish-1350", {"elo": 1400}, "no option 'elo'; it has: careless"),
        ("stockfish", {"depth": 0}, "depth=0"),
        ("mixture", {"q": 1}, "no option 'q'"),
    ],
)
def test_bad_options(policy: str, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_policy("chess", policy, **options)
    with pytest.raises(ConfigError, match="elo=1300 is not an integer from 1350"):
        StockfishPolicy(make("chess"), 1300)


def test_the_mixture_draws_its_players_by_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("chess", "endgames"):
        policy = make_policy(name, "mixture")
        assert isinstance(policy, MixturePolicy)
        monkeypatch.setattr(policy, "_limited", lambda elo, careless, rng: (elo, careless))
        drawn = Counter(policy.begin(np.random.default_rng(seed)) for seed in range(3000))
        parts = [Component(*part) for part in type(make(name)).mixture]
        total = sum(part.weight for part in parts)
        for part in parts:
            assert drawn[part.elo, part.careless] / 3000 == pytest.approx(part.weight / total, abs=0.04)
        assert any(part.careless > 0 for part in parts), "weak players are in it"
        assert {part.elo for part in parts} >= {1350, 2000}, "and strong ones"
    assert Chess.mixture != type(make("endgames")).mixture


def returns(env: Any, policy: str, games: int, **options: Any) -> np.ndarray:
    player = ChessPlayer(env, make_policy(env.name, policy, **options), 1)
    player.size = games
    return np.array([game.total_return for game in player.play(seed=11, block=0)])


def test_careless_players_are_so_in_every_degree(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = CarelessPlayers(Chess())
    monkeypatch.setattr(policy, "_limited", lambda elo, careless, rng: (elo, careless))
    rng = np.random.default_rng(0)
    elos, shares = np.array([policy.begin(rng) for _ in range(2000)]).T
    assert set(elos) == {1350}
    assert np.histogram(shares, bins=9, range=(0, 0.9))[0] == pytest.approx([222] * 9, abs=60)


def test_a_careless_opponent_plays_that_share_of_random_moves() -> None:
    class Rook:
        def prepare(self) -> None: ...

        def close(self) -> None: ...

        def reply(self, board: chess.Board, rng: np.random.Generator) -> str:
            return "h8h1"

    rng = np.random.default_rng(0)
    board = chess.Board("k6r/8/8/8/8/8/8/K7 b - - 0 1")
    replies = Counter(Careless(Rook(), 0.7).reply(board, rng) for _ in range(4000))
    legal = [move.uci() for move in board.legal_moves]
    assert set(replies) == set(legal)
    for move in legal:
        by_chance = 0.7 / len(legal)
        assert replies[move] / 4000 == pytest.approx(by_chance + 0.3 * (move == "h8h1"), abs=0.03)


def test_a_careless_opponent_in_play(stockfish: str) -> None:
    careful, careless = (make("chess", careless=share, max_moves=40) for share in (0, 1))
    assert returns(careless, "stockfish-1350", 12).mean() > returns(careful, "stockfish-1350", 12).mean() + 0.5
    env = make("chess", careless=1)
    answers = []
    for same in (env, env.twin()):
        same.reset(seed=3)
        answers.append(same.step("e 4\n"))
    assert answers[0] == answers[1], "seeded, and twins are as careless"


def test_strengths_in_chess(stockfish: str) -> None:
    env = make("chess")
    assert returns(env, "random", 12).mean() < -0.8
    assert returns(env, "stockfish-2000", 6).mean() > 0.6
    assert returns(env, "stockfish", 4, depth=6).mean() == 1.0
    weak, careless = returns(env, "stockfish-1350", 24), returns(env, "stockfish-1350", 12, careless=0.5)
    assert -0.6 < weak.mean() < 0.6, "against an equal"
    assert careless.mean() < -0.7
    assert set(weak) <= {-1.0, 0.0, 1.0}


def test_strengths_in_endgames(stockfish: str) -> None:
    env = make("endgames")
    assert returns(env, "random", 16).mean() < 0.3
    assert 0.15 < returns(env, "stockfish-1350", 24).mean() < 0.75
    strong = returns(env, "stockfish", 6)
    assert strong.mean() > 0.8
    assert set(strong) <= {0.0, 1.0}, "a lone king cannot win"


def test_an_engine_that_fails_is_asked_again(stand_in: Any, caplog: pytest.LogCaptureFixture) -> None:
    env = make("chess", engine=stand_in("die", "e2e4", "die", "die"), opponent="random")
    policy = make_policy("chess", "stockfish", env_options={"engine": env.engine_settings.path})
    assert policy.act([history()]) == ["e 4\n"]
    assert "policy stockfish asks again" in caplog.text
    with pytest.raises(Exception, match=r"died \(exit status 3\)"):
        policy.act([history()])


def test_played_turn_by_turn(stockfish: str) -> None:
    """The same seed plays the same games, and a policy plays in any environment of its kind."""
    env_options = {"max_moves": 4}
    policy = make_policy("chess", "mixture", seed=3)
    first = rollout([make("chess", **env_options) for _ in range(4)], policy, [1, 2, 3, 4])
    policy.seed(3)
    assert rollout([make("chess", **env_options) for _ in range(4)], policy, [1, 2, 3, 4]) == first
    assert len({game.turns[1].text for game in first}) > 1
