"""The environment: texts, rewards, endings, options, and gymnasium's conventions."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

import qsft.envs
from qsft.envs import Environment, EpisodeError, make
from qsft.envs.wordle import Wordle, symbols
from qsft.envs.wordle.words import load_words
from qsft.errors import ConfigError

WORDS = ["crane", "brace", "trace", "grace", "eerie", "geese"]


def play(env: Environment, secret: str, *actions: str) -> list[tuple]:
    env.reset(options={"secret": secret})
    return [env.step(action) for action in actions]


def test_a_won_game_in_exact_texts() -> None:
    env = make("wordle", words=WORDS)
    assert env.reset(options={"secret": "crane"}) == ("Wordle:\n", {"n_left": 6})
    # Lax: the secret holds one e, yet all three of eerie are coloured.
    assert env.step("e e r i e\n") == ("y y y b g\n", -1.0, False, False, {"n_left": 4})
    assert env.step("t r a c e\n") == ("b g g y g\n", -1.0, False, False, {"n_left": 1})
    assert env.step("c r a n e\n") == (
        "g g g g g\n",
        0.0,
        True,
        False,
        {"n_left": 1, "success": True, "secret": "crane"},
    )


def test_strict_feedback_and_tiles() -> None:
    env = make("wordle", words=WORDS, feedback="strict", observation="tiles")
    assert play(env, "crane", "e e r i e\n", "c r a n e\n") == [
        ("1eb 2eb 3ry 4ib 5eg\n", -1.0, False, False, {"n_left": 4}),
        ("1cg 2rg 3ag 4ng 5eg\n", 0.0, True, False, {"n_left": 1, "success": True, "secret": "crane"}),
    ]


@pytest.mark.parametrize(("invalid_reward", "low"), [(-1.0, -6.0), (-10, -60.0), (0, -6.0)])
def test_a_lost_game_is_terminated_and_invalid_guesses_cost_a_try(invalid_reward: float, low: float) -> None:
    env = make("wordle", words=WORDS, invalid_reward=invalid_reward)
    assert env.return_range == (low, 0.0)
    steps = play(env, "crane", "t r a c e\n", "x x x x x\n", "\n", "b r a c e\n", "g r a c e\n", "t r a c e\n")
    assert [step[0] for step in steps] == ["b g g y g\n", "\n", "\n", "b g g y g\n", "b g g y g\n", "b g g y g\n"]
    assert [step[1] for step in steps] == [-1.0, invalid_reward, invalid_reward, -1.0, -1.0, -1.0]
    assert [step[2:4] for step in steps] == [(False, False)] * 5 + [(True, False)]
    assert [step[4]["n_left"] for step in steps] == [1] * 6
    assert steps[-1][4]["success"] is False
    assert all("secret" not in step[4] for step in steps[:-1])


@pytest.mark.parametrize(
    "action",
    [
        "",
        "\n",
        "CRANE\n",
        "Crane",
        "c r a n\n",
        "c r a n e s\n",
        "12345\n",
        "crane!",
        "qwxyz",
        "crâne",
        "ｃｒａｎｅ",
        "🟩" * 5,
        "c\tr a n e",
        "c\nrane",
        "crane crane",
        "\x00crane",
        "\ud800rane",
        "c r a n e " * 200_000,
    ],
)
def test_anything_else_is_an_invalid_guess(action: str) -> None:
    env = make("wordle", words=WORDS)
    assert play(env, "trace", action) == [("\n", -1.0, False, False, {"n_left": 6})]


@pytest.mark.parametrize("action", ["crane", "c r a n e", " c r a n e \n", "crane\n\n", "cr ane\n"])
def test_blanks_do_not_matter(action: str) -> None:
    assert play(make("wordle", words=WORDS), "crane", action)[0][0] == "g g g g g\n"


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.text(max_size=12) | st.sampled_from([" ".join(word) + "\n" for word in WORDS]), min_size=6, max_size=6)
)
def test_every_game_ends_within_its_return_range(actions: list[str]) -> None:
    env = make("wordle", words=WORDS, invalid_reward=-10)
    env.reset(seed=1)
    total, over = 0.0, False
    for action in actions:
        _, reward, over, truncated, info = env.step(action)
        total += reward
        assert not truncated
        assert 0 <= info["n_left"] <= len(WORDS)
        if over:
            break
    assert over
    assert env.return_range[0] <= total <= env.return_range[1]


def test_stepping_without_a_game_says_what_to_do() -> None:
    env = make("wordle")
    with pytest.raises(EpisodeError, match=r"call reset\(\)"):
        env.step("c r a n e\n")
    play(env, "about", "about")
    with pytest.raises(EpisodeError, match=r"call reset\(\)"):
        env.step("about")
    env.reset()
    with pytest.raises(EpisodeError, match="an action is a str, got int"):
        env.step(3)


def test_reset_is_reproducible_and_pinned_by_options() -> None:
    def secrets(seed: int) -> list[str]:
        env = make("wordle")
        found = []
        for game in range(5):
            env.reset(seed=seed if game == 0 else None)
            while not (step := env.step(""))[2]:
                pass
            found.append(step[4]["secret"])
        return found

    assert secrets(3) == secrets(3) != secrets(4)
    assert len(set(secrets(3))) > 1, "later games go on from the generator of the first"


def test_each_instance_owns_its_generator() -> None:
    one, other = make("wordle"), make("wordle")
    one.reset(seed=5)
    other.reset(seed=5)
    assert one._secret == other._secret
    other.reset()
    other.reset()
    one.reset()
    alone = make("wordle")
    alone.reset(seed=5)
    alone.reset()
    assert one._secret == alone._secret


def test_secrets_are_uniform() -> None:
    env = make("wordle", words=WORDS)
    env.reset(seed=0)
    counts = dict.fromkeys(range(6), 0)
    for _ in range(6000):
        env.reset()
        counts[env._secret] += 1
    assert all(abs(count - 1000) < 150 for count in counts.values())  # five standard deviations


@pytest.mark.parametrize("observation", ["colours", "tiles"])
def test_gymnasium_accepts_it(observation: str) -> None:
    env = Wordle(observation=observation)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that there is no spec and that no render mode exists
        check_env(env, skip_render_check=True)
    first, _ = env.reset(seed=0)
    assert first in env.observation_space
    answer = env.step("c r a n e\n")[0]
    assert answer in env.observation_space
    assert "c r a n e\n" in env.action_space


@pytest.mark.parametrize("observation", ["colours", "tiles"])
def test_symbols_spell_every_text(observation: str) -> None:
    known = symbols(observation)
    assert qsft.envs.symbols("wordle", observation=observation) == known
    assert len(known) == len(set(known)) == (28 if observation == "colours" else 28 + 390)
    env = make("wordle", observation=observation)
    texts = [env.reset(seed=0)[0]]
    for word in (*env.lexicon.words[:5], "invalid"):
        texts += [" ".join(word) + "\n", env.step(word)[0]]
    for text in texts:
        assert set(text.replace("\n", " \n").split(" ")) - {""} <= set(known)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"feedback": "loose"}, "lax, strict"),
        ({"observation": "emoji"}, "colours, tiles"),
        ({"invalid_reward": 1}, "at most 0"),
        ({"invalid_reward": float("nan")}, "finite"),
        ({"invalid_reward": float("-inf")}, "finite"),
        ({"invalid_reward": "-1"}, "not a number"),
        ({"words": []}, "empty"),
        ({"words": ["crane", "Trace"]}, "row 2: 'Trace' is not five letters"),
        ({"words": ["crane", "cranes"]}, "row 2: 'cranes' is not five letters"),
        ({"words": ["crane", 7]}, "row 2: 7 is not five letters"),
        ({"words": ["crane", "trace", "crane"]}, "row 3: 'crane' is already in row 1"),
        ({"words": "no/such/file"}, "no/such/file: cannot read"),
        ({"word": None}, "no option 'word'; it has: words, invalid_reward, feedback, observation"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make("wordle", **options)
    assert "\n" not in str(caught.value)


def test_bad_word_files(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("crane\ntrace\n")
    assert load_words(path) == load_words(str(path)) == ("crane", "trace")
    path.write_text("crane\n\ntrace\n")
    with pytest.raises(ConfigError, match=r"words\.txt: row 2: '' is not five letters"):
        load_words(path)
    path.write_bytes(b"crane\n\xff\n")
    with pytest.raises(ConfigError, match=r"words\.txt: cannot read"):
        load_words(path)


def test_bad_reset_options_leave_the_game_as_it_was() -> None:
    env = make("wordle", words=WORDS)
    env.reset(options={"secret": "crane"})
    with pytest.raises(ConfigError, match="'wrong' is not in the vocabulary of 6 words"):
        env.reset(options={"secret": "wrong"})
    with pytest.raises(ConfigError, match="unknown reset option 'word'; known: secret"):
        env.reset(options={"word": "crane"})
    assert env.step("crane")[1] == 0.0


def test_own_list() -> None:
    words = load_words()
    assert len(words) == 452
    assert list(words) == sorted(words)
    assert "crane" in words, "the example of every text about the game"
    assert not [word for word in words if word.endswith("s") and word[:4] in {"book", "game", "word"}]
    notice = Path(__file__).parents[3] / "src/qsft/envs/wordle/NOTICE"
    assert "Copyright 2000-2011 by Kevin Atkinson" in notice.read_text()
