"""Many games on integers: the same answers as the text environment, and fast."""

from __future__ import annotations

import time

import numpy as np
import pytest

from qsft.envs import make
from qsft.envs.wordle import WordleBatch
from qsft.envs.wordle.rules import NO_FEEDBACK, lexicon
from qsft.envs.wordle.texts import parse_observation
from qsft.envs.wordle.words import load_words


@pytest.mark.parametrize("feedback", ["lax", "strict"])
@pytest.mark.parametrize("invalid_reward", [-1.0, -10.0])
def test_batch_equals_text(feedback: str, invalid_reward: float) -> None:
    drawn = np.random.default_rng(0)
    env = make("wordle", feedback=feedback, invalid_reward=invalid_reward)
    words = env.lexicon.words
    games = 300
    secrets = drawn.integers(len(words), size=games)
    batch = WordleBatch(env.lexicon, invalid_reward)
    batch.reset(secrets)
    # A fifth are the secret, a fifth invalid in either direction.
    guesses = drawn.integers(len(words), size=(games, 6))
    kind = drawn.random((games, 6))
    guesses = np.where(kind < 0.2, secrets[:, None], guesses)
    guesses = np.where(kind > 0.8, np.where(kind > 0.9, -1, len(words)), guesses)
    answers = [batch.step(guesses[:, turn]) for turn in range(6)]
    for game in range(games):
        env.reset(options={"secret": words[secrets[game]]})
        over = False
        for turn in range(6):
            code, reward, done = (answers[turn][part][game] for part in range(3))
            if over:
                assert (code, reward, done) == (NO_FEEDBACK, 0.0, True)
                continue
            guess = guesses[game, turn]
            observation, its_reward, over, _, _ = env.step(words[guess] if 0 <= guess < len(words) else "?")
            assert (code, reward, done) == (parse_observation(observation), its_reward, over)
    assert batch.done.all()
    assert (batch.tries < 6).any()


def test_steps_do_not_change_what_was_returned_before() -> None:
    batch = WordleBatch(lexicon(("crane", "trace")))
    batch.reset(np.array([0, 1]))
    codes, rewards, done = batch.step(np.array([1, 0]))
    kept = codes.copy(), rewards.copy(), done.copy()
    batch.step(np.array([0, 0]))
    assert all((a == b).all() for a, b in zip((codes, rewards, done), kept, strict=True))


def test_bad_secrets() -> None:
    batch = WordleBatch(lexicon(("crane", "trace")))
    for secrets in ([2], [-1, 0]):
        with pytest.raises(ValueError, match=r"0\.\.1"):
            batch.reset(np.array(secrets))


def test_speed() -> None:
    """At least 200,000 game steps a second; measured some fifty times that, so that a busy machine passes."""
    lex = lexicon(load_words())
    batch = WordleBatch(lex)
    guesses = np.random.default_rng(0).integers(len(lex), size=(6, 4096))
    best = float("inf")
    for _ in range(5):
        batch.reset(np.arange(4096) % len(lex))
        start = time.process_time()  # what others do on the machine does not count
        for turn in guesses:
            batch.step(turn)
        best = min(best, time.process_time() - start)
    assert 6 * 4096 / best > 200_000
