"""Feedback: the original's golden vectors, and the strict rule against an independent implementation."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qsft.envs import make
from qsft.envs.wordle.rules import CODES, NO_FEEDBACK, SOLVED, code_of, colours, feedback_table, lexicon
from qsft.envs.wordle.texts import observation_text, parse_observation
from qsft.envs.wordle.words import load_words
from qsft.errors import ConfigError

GOLDEN = Path(__file__).parents[3] / "../shared/golden"
# Few letters, so that repeated ones are the rule.
WORDS = st.lists(st.text("abc", min_size=5, max_size=5), min_size=1, max_size=12, unique=True)


def strict_by_counting(guess: str, secret: str) -> str:
    """The newspaper's rule as players state it: greens use up their letters, the rest is dealt from the left."""
    stock = Counter(s for g, s in zip(guess, secret, strict=True) if g != s)
    answer = ""
    for g, s in zip(guess, secret, strict=True):
        if g == s:
            answer += "g"
        elif stock[g]:
            stock[g] -= 1
            answer += "y"
        else:
            answer += "b"
    return answer


def lax_by_definition(guess: str, secret: str) -> str:
    return "".join("g" if g == s else "y" if g in secret else "b" for g, s in zip(guess, secret, strict=True))


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="golden vectors of the original are not beside the repository")
def test_golden_episodes_are_reproduced_exactly() -> None:
    episodes = [json.loads(line) for line in (GOLDEN / "wordle.jsonl").read_text().splitlines()]
    assert len(episodes) == 200
    steps = 0
    for episode in episodes:
        env = make("wordle", words=GOLDEN / "wordle_vocab.txt", invalid_reward=episode["bad_word_reward"])
        observation, info = env.reset(seed=0, options={"secret": episode["secret"]})
        assert observation == episode["init"]
        played: dict[str, list] = {"obs": [], "reward": [], "done": [], "n_left": []}
        for action in episode["actions"]:
            observation, reward, terminated, truncated, info = env.step(" ".join(action) + "\n")
            assert not truncated
            for key, value in zip(played, (observation, reward, terminated, info["n_left"]), strict=True):
                played[key].append(value)
            steps += 1
        assert played == {key: episode[key] for key in played}
        assert info["success"] == (episode["reward"][-1] == 0.0)
    assert steps == sum(1 for episode in episodes for _ in episode["obs"]) > 500


@settings(max_examples=60, deadline=None)
@given(WORDS)
def test_both_rules_against_plain_implementations(words: list[str]) -> None:
    for rule, plain in (("lax", lax_by_definition), ("strict", strict_by_counting)):
        table = feedback_table(words, rule)
        assert table.dtype == np.uint8
        assert [[colours(int(code)) for code in row] for row in table] == [[plain(g, s) for s in words] for g in words]


def test_both_rules_on_the_own_list() -> None:
    words = load_words()
    drawn = random.Random(0)
    pairs = [(drawn.randrange(len(words)), drawn.randrange(len(words))) for _ in range(20_000)]
    for rule, plain in (("lax", lax_by_definition), ("strict", strict_by_counting)):
        table = lexicon(words, rule).table
        assert all(colours(int(table[g, s])) == plain(words[g], words[s]) for g, s in pairs)
    assert (lexicon(words, "lax").table != lexicon(words, "strict").table).mean() > 0.01


def test_a_table_made_in_pieces_is_the_same() -> None:
    words = [a + b + c + "ab" for a in "abcdefghijklmnop" for b in "abcdefghijklmnop" for c in "abcdefg"]
    assert len(words) ** 2 > 2_000_000, "large enough for more than one piece"
    table = feedback_table(words, "strict")
    drawn = random.Random(0)
    for _ in range(3000):
        g, s = drawn.randrange(len(words)), drawn.randrange(len(words))
        assert colours(int(table[g, s])) == strict_by_counting(words[g], words[s])


def test_codes_and_colours_are_inverse() -> None:
    assert [code_of(colours(code)) for code in range(CODES)] == list(range(CODES))
    assert colours(SOLVED) == "ggggg"
    assert colours(code_of("gybbb")) == "gybbb"
    assert NO_FEEDBACK >= CODES


@pytest.mark.parametrize("observation", ["colours", "tiles"])
def test_observations_are_read_back(observation: str) -> None:
    for code in range(CODES):
        assert parse_observation(observation_text("crane", code, observation)) == code
    assert parse_observation("\n") == NO_FEEDBACK
    with pytest.raises(ValueError, match="no answer of Wordle"):
        parse_observation("Wordle:\n")


def test_unknown_rule() -> None:
    with pytest.raises(ConfigError, match="lax, strict"):
        feedback_table(["crane"], "loose")


@settings(max_examples=40, deadline=None)
@given(WORDS, st.randoms(use_true_random=False))
def test_narrow_keeps_exactly_the_words_that_fit(words: list[str], drawn: random.Random) -> None:
    lex = lexicon(tuple(words))
    games = 4
    secrets = [drawn.randrange(len(words)) for _ in range(games)]
    consistent = lex.everything(games)
    said: list[list[tuple[str, str]]] = [[] for _ in range(games)]
    for _ in range(3):
        guesses = np.array([drawn.randrange(-1, len(words)) for _ in range(games)])
        codes = np.array([NO_FEEDBACK if g < 0 else lex.table[g, s] for g, s in zip(guesses, secrets, strict=True)])
        lex.narrow(consistent, guesses, codes.astype(np.uint8))
        for game, guess in enumerate(guesses):
            if guess >= 0:
                said[game].append((words[guess], lax_by_definition(words[guess], words[secrets[game]])))
        for game in range(games):
            fitting = [all(lax_by_definition(g, w) == answer for g, answer in said[game]) for w in words]
            assert consistent[game].tolist() == fitting
