"""The environment: texts, rewards, endings, options, and gymnasium's conventions. Nothing here needs an engine."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import chess
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

import qsft.envs
from qsft.data.trajectory import AGENT_ROLE, Trajectory, Turn
from qsft.envs import Environment, EpisodeError, make, make_policy
from qsft.envs.chess import illegal_moves
from qsft.envs.chess.engine import ENVIRONMENT_VARIABLE
from qsft.envs.chess.texts import action_text, last_position, legal_actions, observation_text, parse_observation
from qsft.envs.rollout import rollout
from qsft.errors import ConfigError, DataError
from qsft.evaluation.kinds import mean_counts

GOLDEN = Path(__file__).parents[3] / "../shared/golden/chess.jsonl"
START = (
    "r n b q k b n r / p p p p p p p p / 8 / 8 / 8 / 8 / P P P P P P P P / R N B Q K B N R   w   K Q k q   -   0   1"
)


def board_fen(observation: str) -> str:
    return parse_observation(observation)


def play(env: Environment, options: dict, *moves: str) -> list[tuple]:
    env.reset(options=options)
    return [env.step(action_text(move)) for move in moves]


@pytest.mark.skipif(not GOLDEN.exists(), reason="no recorded games of the original environment beside the repository")
def test_games_of_the_original() -> None:
    games = [json.loads(line) for line in GOLDEN.read_text(encoding="utf-8").splitlines()]
    assert len(games) >= 70
    for game in games:
        env = make("chess", max_moves=game["max_moves"])
        observation, _ = env.reset(options={"fen": game["fen"], "replies": game["replies"]})
        assert observation == game["init"], game["tag"]
        steps = [env.step(action_text(action)) for action in game["actions"]]
        assert [step[0] for step in steps] == game["obs"], game["tag"]
        assert [step[1] for step in steps] == game["reward"], game["tag"]
        assert [int(step[2] or step[3]) for step in steps] == game["done"], game["tag"]
        assert [step[3] for step in steps].count(True) == game["tag"].startswith("limit")


def test_a_won_game_in_exact_texts() -> None:
    env = make("chess")
    replies = ["e7e5", "b8c6", "g8f6"]
    assert env.reset(options={"replies": replies}) == (START, {"legal": True})
    observation, reward, terminated, truncated, info = env.step("e 4\n")
    assert observation == (
        "r n b q k b n r / p p p p 1 p p p / 8 / 4 p 3 / 4 P 3 / 8 / P P P P 1 P P P / R N B Q K B N R"
        "   w   K Q k q   -   0   2"
    )
    assert (reward, terminated, truncated, info) == (0.0, False, False, {"legal": True})
    before = env.step("B c 4\n")[0]
    assert env.step("Q h 6\n") == (before, -1.0, False, False, {"legal": False}), "nothing moves, Black included"
    assert env.step("Q h 5\n")[1:4] == (0.0, False, False)
    observation, *rest = env.step("Q x f 7 #\n")
    assert board_fen(observation) == "r1bqkb1r/pppp1Qpp/2n2n2/4p3/2B1P3/8/PPPP1PPP/RNB1K1NR b KQkq - 0 4"
    assert rest == [1.0, True, False, {"legal": True, "success": True, "fen": chess.STARTING_FEN, "replies": replies}]


def test_a_lost_game() -> None:
    *_, last = play(make("chess"), {"replies": ["e7e5", "d8h4"]}, "f3", "g4")
    assert last[1:4] == (-1.0, True, False)
    assert last[4]["success"] is False


@pytest.mark.parametrize(
    ("fen", "moves", "replies"),
    [
        ("7k/8/8/6Q1/8/8/8/K7 w - - 0 1", ["Qg6"], []),  # stalemate
        ("8/8/8/8/8/2k5/1p6/2K5 w - - 0 1", ["Kb1", "Ka2", "Kxb1"], ["c3d3", "b2b1q"]),  # bare kings
        ("k7/8/8/8/8/8/8/K6R w - - 149 90", ["Rh2"], []),  # 75 moves
        ("k7/8/8/8/8/8/8/K6R w - - 0 1", ["Rh2", "Rh1"] * 4, ["a8b8", "b8a8"] * 4),  # fifth time
    ],
)
def test_draws_end_the_game(fen: str, moves: list[str], replies: list[str]) -> None:
    steps = play(make("chess"), {"fen": fen, "replies": replies}, *moves)
    assert [step[1] for step in steps] == [0.0] * len(moves)
    assert [step[2] for step in steps] == [False] * (len(moves) - 1) + [True]
    assert steps[-1][4]["success"] is False


def test_the_third_time_and_fifty_moves_do_not_end_it() -> None:
    steps = play(make("chess"), {"replies": ["g8f6", "f6g8"] * 3}, *["Nf3", "Ng1"] * 3)
    assert not any(step[2] for step in steps)
    (step,) = play(make("chess"), {"fen": "k7/8/8/8/8/8/8/K6R w - - 99 60", "replies": ["a8b8"]}, "Rh2")
    assert not step[2]


def test_the_turn_after_the_limit_truncates() -> None:
    env = make("chess", max_moves=2)
    assert (env.max_turns, env.return_range) == (3, (-3.0, 1.0))
    steps = play(env, {"replies": ["a7a6"]}, "Ke5", "a4", "Ke5")
    assert [step[1:4] for step in steps] == [(-1.0, False, False), (0.0, False, False), (-1.0, False, True)]
    assert steps[-1][4]["success"] is False
    with pytest.raises(EpisodeError, match=r"call reset\(\)"):
        env.step("a 5\n")
    assert (make("chess").max_turns, make("chess").return_range) == (401, (-401.0, 1.0))


def test_mate_on_the_last_turn_is_an_ending() -> None:
    fen = "6k1/5ppp/8/8/8/8/8/K2R4 w - - 0 1"
    steps = play(make("chess", max_moves=1), {"fen": fen, "replies": []}, "Kb9", "Rd8#")
    assert steps[-1][1:4] == (1.0, True, False)


@pytest.mark.parametrize("action", ["N f 3\n", "Nf3", "g1f3", "N g 1 f 3", " Nf3+ ", "N x f 3\n"])
def test_spellings_of_a_legal_move(action: str) -> None:
    env = make("chess")
    env.reset(options={"replies": ["a7a6"]})
    observation, reward, *_ = env.step(action)
    assert reward == 0.0
    assert "/ 5 N 2 /" in observation


@pytest.mark.parametrize(
    "action",
    [
        "",
        "\n",
        "hello",
        "--",
        "0000",
        "Z0",
        "@@@@",
        "e5",
        "Ke2",
        "nf3",
        "N\nf3",
        "e4e4",
        "e4 e5",
        "♘f3",
        "\ud800",
        "e2e9",
        "O-O",
        "e4=Q",
        "a1a1",
        "\x00",
        "N f 3 " * 100_000,
    ],
)
def test_anything_else_is_an_illegal_move(action: str) -> None:
    env = make("chess")
    env.reset(options={"replies": []})
    assert env.step(action) == (START, -1.0, False, False, {"legal": False})


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), choices=st.lists(st.integers(0, 10**6), min_size=30, max_size=30))
def test_random_games_follow_the_rules_of_python_chess(seed: int, choices: list[int]) -> None:
    """A replay of the same moves on a board of its own, with every ninth action an illegal one."""
    env = make("chess", opponent="random", max_moves=25)
    observation, _ = env.reset(seed=seed)
    board, total, over = chess.Board(), 0.0, False
    replies: list[str] = []
    for choice in choices:
        assert observation == " ".join(board.fen())
        if choice % 9 == 0:
            action, expected = "e9", -1.0
        else:
            moves = sorted(board.legal_moves, key=str)
            move = moves[choice % len(moves)]
            action, expected = board.san(move), 0.0
            board.push(move)
        observation, reward, terminated, truncated, info = env.step(action_text(action))
        total += reward
        over = terminated or truncated
        if expected == 0.0 and not board.is_game_over():
            # What Black played shows in the position alone.
            after = [m for m in list(board.legal_moves) if spelled_after(board, m) == board_fen(observation)]
            assert len(after) == 1
            replies.append(after[0].uci())
            board.push(after[0])
        if terminated:
            expected = {"1-0": 1.0, "0-1": -1.0, "1/2-1/2": 0.0}[board.result()]
        assert reward == expected
        assert terminated == (board.is_game_over() and info["legal"])
        if over:
            assert info["replies"] == replies
            assert info["success"] == (board.result() == "1-0")
            break
    assert over
    assert env.return_range[0] <= total <= env.return_range[1]


def spelled_after(board: chess.Board, move: chess.Move) -> str:
    board.push(move)
    fen = board.fen()
    board.pop()
    return fen


def test_stepping_without_a_game_says_what_to_do() -> None:
    env = make("chess")
    with pytest.raises(EpisodeError, match=r"call reset\(\)"):
        env.step("e 4\n")
    env.reset(options={"replies": []})
    with pytest.raises(EpisodeError, match="an action is a str, got int"):
        env.step(3)
    with pytest.raises(EpisodeError, match=r"call reset\(\)"):
        env.twin().step("e 4\n")


def test_seeds_and_recorded_games() -> None:
    class First:
        """The first legal move; the same for the same position."""

        name = "first"

        def seed(self, seed: int) -> None:
            pass

        def act(self, histories: Any) -> list[str]:
            boards = [chess.Board(parse_observation(history.turns[-1].text)) for history in histories]
            return [action_text(board.san(next(iter(board.legal_moves)))) for board in boards]

    def games(seeds: list[int], options: list[dict] | None = None, **settings: Any) -> list[Trajectory]:
        return rollout([make("chess", max_moves=30, **settings) for _ in seeds], First(), seeds, options)

    first, second = games([1, 2], opponent="random")
    assert first != second
    assert games([1], opponent="random") == [first]
    pins = [{key: game.metadata[key] for key in ("fen", "replies")} for game in (first, second)]
    assert games([8, 9], pins) == [first, second], "no engine and no seed is needed"
    short = {"fen": None, "replies": first.metadata["replies"][:3]}
    (game,) = games([1], [short], opponent="random")
    assert game.metadata["replies"][:3] == short["replies"]
    assert len(game.metadata["replies"]) > 3, "the opponent goes on where the recorded moves end"
    env = make("chess", opponent="random", max_moves=1)
    seen = set()
    for _ in range(20):
        env.reset()
        seen.add(env.step("a 3\n")[0])
    assert len(seen) > 1, "later games go on from the generator of the first"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fen": 3}, "option fen: a int; give a FEN"),
        ({"fen": "hello"}, "'hello' is no FEN"),
        ({"fen": ""}, "'' is no FEN"),
        ({"fen": "8/8/8/8/8/8/8/8 w - - 0 1"}, "impossible position .*no white king"),
        ({"fen": "K6k/8/8/8/8/8/8/K7 w - - 0 1"}, "too many kings"),
        ({"fen": "7k/8/8/8/8/8/8/K6R w - - 0 1"}, "opposite check"),
        ({"fen": "7k/8/8/8/8/8/8/K6R w - - 0 1", "replies": []}, "opposite check"),
        ({"fen": "8/8/8/8/8/2k5/8/1pK5 w - - 0 1"}, "pawns on backrank"),
        ({"fen": chess.STARTING_FEN.replace(" w ", " b ")}, "Black to move; the agent plays White"),
        ({"fen": "9/8/8/8/8/8/8/8 w - - 0 1"}, "is no FEN"),
        ({"fen": chess.STARTING_FEN + "\nquit"}, "is no FEN"),
        ({"replies": "e7e5"}, "no list"),
        ({"replies": 5}, "no list"),
        ({"replies": ["e7e5", "castle"]}, "move 2, 'castle', is no UCI move"),
        ({"replies": [None]}, "move 1, None, is no UCI move"),
        ({"replies": ["0000"]}, "move 1, '0000', is no UCI move"),
        ({"replies": [], "colour": "black"}, "unknown reset option 'colour'; known: fen, replies"),
    ],
)
def test_bad_reset_options_leave_the_game_as_it_was(options: dict, message: str) -> None:
    env = make("chess", opponent="random")
    env.reset(options={"replies": ["a7a6"]})
    with pytest.raises(ConfigError, match=message) as caught:
        env.reset(options=options)
    assert "\n" not in str(caught.value)
    assert env.step("e 4\n")[1] == 0.0


def test_a_reply_that_does_not_fit_the_game() -> None:
    env = make("chess")
    env.reset(options={"replies": ["e7e5", "e7e5"]})
    env.step("e 4\n")
    with pytest.raises(
        EpisodeError, match=r"move 2, 'e7e5', is not legal in .*White must play as in the recorded game"
    ):
        env.step("d 4\n")
    with pytest.raises(EpisodeError, match=r"call reset\(\)"):
        env.step("d 4\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opponent": "gnuchess"}, "use one of stockfish-depth1, stockfish-elo, random"),
        ({"max_moves": 0}, "max_moves=0 is not an integer of at least 1"),
        ({"max_moves": 4.5}, "max_moves=4.5"),
        ({"opponent": "stockfish-elo", "elo": 1200}, "elo=1200 is not an integer from 1350 to 2850"),
        ({"opponent": "stockfish-elo", "elo": "1500"}, "elo='1500'"),
        ({"opponent": "stockfish-elo", "move_seconds": 0}, "move_seconds=0"),
        ({"opponent": "stockfish-elo", "move_seconds": float("inf")}, "move_seconds=inf"),
        ({"engine_timeout": float("inf")}, "engine_timeout=inf"),
        ({"opponent": "stockfish-elo", "move_seconds": float("nan")}, "move_seconds=nan"),
        ({"elo": 1500}, "for opponent 'stockfish-elo', not 'stockfish-depth1'"),
        ({"opponent": "random", "move_seconds": 1.0}, "for opponent 'stockfish-elo', not 'random'"),
        ({"careless": 1.5}, "careless=1.5 is not a probability"),
        ({"careless": True}, "careless=True is not a probability"),
        ({"engine_timeout": 0}, "engine_timeout=0"),
        ({"engine_timeout": float("nan")}, "engine_timeout=nan"),
        ({"side": "black"}, "no option 'side'; it has: "),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    for name in ("chess", "endgames"):
        with pytest.raises(ConfigError, match=message) as caught:
            make(name, **options)
        assert "\n" not in str(caught.value)


def test_a_missing_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    env = make("chess", engine=str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match=r"nothing' is no program that can be run; install it .* option engine or"):
        env.reset()
    env.reset(options={"replies": ["a7a6"]})
    assert env.step("e 4\n")[1] == 0.0, "a recorded game needs none"
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path))
    with pytest.raises(ConfigError, match="is no program"):
        make("chess").reset()
    monkeypatch.delenv(ENVIRONMENT_VARIABLE)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("qsft.envs.chess.engine._DEBIAN", str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="Stockfish is not installed"):
        make("chess").reset()
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    with pytest.raises(ConfigError, match="true is no UCI engine"):
        make("chess", engine="true").reset()


@pytest.mark.parametrize("name", ["chess", "endgames"])
def test_gymnasium_conventions(name: str) -> None:
    env = make(name, opponent="random")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no spec and that no render mode exists
        check_env(env, skip_render_check=True)
    observation, _ = env.reset(seed=0)
    assert observation in env.observation_space
    assert action_text("Qa1xb2=N#") in env.action_space


def test_symbols_spell_every_text() -> None:
    known = qsft.envs.symbols("chess")
    assert known == qsft.envs.symbols("endgames")
    assert len(known) == len(set(known)) == 38
    pieces = qsft.envs.symbols("chess", observation="pieces")
    assert pieces[:38] == known
    assert len(set(pieces)) == 38 + 12 * 64
    texts = [observation_text("rnbqkpRNBQKP w KQkq e3 1234567890"), action_text("O-O-O"), action_text("exd8=Q+")]
    env = make("chess", opponent="random")
    texts.append(env.reset(seed=3)[0])
    for _ in range(20):
        board = chess.Board(board_fen(texts[-1]))
        if not any(board.legal_moves):
            break
        action = action_text(board.san(list(board.legal_moves)[-1]))
        texts += [action, env.step(action)[0]]
    for text in texts:
        assert set(text.replace("\n", " \n").split(" ")) - {""} <= set(known)


@pytest.mark.parametrize(
    ("fen", "text"),
    [
        ("8/8/2Q5/8/8/6k1/4K3/8 w - - 10 6", "Ke2 Qc6 kg3   w   -   -   1 0   6"),
        ("8/8/8/R7/8/6k1/4K3/R7 w - - 0 1", "Ke2 Ra1 Ra5 kg3   w   -   -   0   1"),
        ("4k3/8/8/3pP3/8/8/8/4K2R w K d6 0 30", "Ke1 Rh1 Pe5 ke8 pd5   w   K   d 6   0   3 0"),
    ],
)
def test_positions_as_lists_of_pieces(fen: str, text: str) -> None:
    assert observation_text(fen, "pieces") == text
    assert parse_observation(text) == fen
    env = make("chess", observation="pieces", opponent="random")
    assert env.reset(options={"fen": fen})[0] == text
    assert set(text.split()) <= set(env.symbols())


def test_the_same_game_whatever_tells_the_position() -> None:
    options = [{"observation": form, "opponent": "random", "max_moves": 20} for form in ("fen", "pieces")]
    envs = [make("endgames", **option) for option in options]
    first, second = (rollout([env], make_policy("endgames", "random", seed=1), [3])[0] for env in envs)
    assert [turn.text for turn in first.turns if turn.is_agent] == [turn.text for turn in second.turns if turn.is_agent]
    assert [parse_observation(turn.text) for turn in first.turns[::2]] == [
        parse_observation(turn.text) for turn in second.turns[::2]
    ]
    assert first.metadata == second.metadata


@pytest.mark.parametrize("text", ["Ke2 kz9   w   -   -   0   1", "Xe2 kg3   w   -   -   0   1", "hello"])
def test_what_is_no_list_of_pieces(text: str) -> None:
    with pytest.raises(DataError, match="cannot read the position"):
        last_position(Trajectory([Turn("user", text)]))


def test_an_unknown_form_of_observation() -> None:
    with pytest.raises(ConfigError, match="observation='board' is unknown; use one of fen, pieces"):
        make("endgames", observation="board")


def test_counting_illegal_moves() -> None:
    env = make("chess")
    observation, _ = env.reset(options={"replies": ["e7e5", "d8h4"]})
    game = Trajectory([Turn("user", observation)])
    for move in ("f5", "f3", "Ke3", "g4"):
        observation, reward, *_ = env.step(action_text(move))
        game.turns += [Turn(AGENT_ROLE, action_text(move), reward), Turn("user", observation)]
    assert game.rewards == [-1.0, 0.0, -1.0, -1.0], "the last is the mate"
    assert illegal_moves(game) == 2
    other = Trajectory(game.turns[:3], metadata={})
    assert mean_counts("endgames", [game, other]) == {"illegal_moves": 1.5}
    assert mean_counts("wordle", [game]) == mean_counts("chess", []) == {}


def test_for_the_eye_and_the_keyboard() -> None:
    env = make("chess")
    assert env.typed_action("N f3") == env.typed_action("Nf3") == "N f 3\n"
    console = Console(width=40)
    with console.capture() as capture:
        console.print(env.picture(Trajectory([Turn("user", START)])))
    lines = capture.get().splitlines()
    assert lines[0].rstrip() == "8 ♜ ♞ ♝ ♛ ♚ ♝ ♞ ♜"
    assert [line[0] for line in lines[:8]] == list("87654321")
    assert lines[6].count("♟") == 8
    assert lines[4].strip() == "4"
    assert lines[8] == "  a b c d e f g h"
    with pytest.raises(DataError, match="cannot read the position"):
        env.picture(Trajectory([Turn("user", "Wordle:\n")]))


@pytest.mark.parametrize("observation", ["fen", "pieces"])
@pytest.mark.parametrize(
    "fen", [chess.STARTING_FEN, "8/1P4k1/8/8/8/8/8/R3K2R w KQ - 0 1", "8/7k/8/8/8/8/1Q3r2/K7 w - - 0 1"]
)
def test_legal_actions_are_all_that_the_rules_allow(fen: str, observation: str) -> None:
    env = make("chess", opponent="random", observation=observation)
    shown, _ = env.reset(seed=0, options={"fen": fen})
    assert env.legal_actions is not None
    actions = env.legal_actions(Trajectory([Turn("user", shown)]))
    board = chess.Board(fen)
    assert {board.parse_san(action.replace(" ", "").strip()) for action in actions} == set(board.legal_moves)
    assert len(actions) == len(set(actions)) == board.legal_moves.count()
    for action in actions:
        env.reset(seed=0, options={"fen": fen})
        assert env.step(action)[4]["legal"]


def test_of_what_is_no_position_nothing_is_legal() -> None:
    with pytest.raises(DataError, match="cannot read the position"):
        legal_actions(Trajectory([Turn("user", "hello")]))
