"""Scripted policies: their strength on our list, and the same play over texts as over arrays."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from qsft.data.trajectory import Trajectory, Turn
from qsft.envs import make, make_policy, scripted_policies
from qsft.envs.collect import collect
from qsft.envs.rollout import derive_seed, rollout
from qsft.envs.wordle import Wordle
from qsft.envs.wordle.policies import WordlePolicy
from qsft.errors import ConfigError, DataError
from qsft.policies.base import Policy

POLICIES = ["greedy-information", "mixture", "random", "random-consistent"]
GAMES = 20_000


def wordle(**options: object) -> Wordle:
    env = make("wordle", **options)
    assert isinstance(env, Wordle)
    return env


def test_names_and_contract() -> None:
    assert scripted_policies("wordle") == POLICIES
    for name in POLICIES:
        policy = make_policy("wordle", name)
        assert isinstance(policy, Policy)
        assert policy.name == name
        assert policy.act([]) == []


@pytest.mark.parametrize(
    ("policy", "mean", "won"),
    [
        ("random", -5.954, 0.013),
        ("random-consistent", -2.374, 0.998),
        ("mixture", -4.12, 0.692),  # the tuning: the paper's data mean, within .05
        ("greedy-information", -1.909, 1.0),
    ],
)
def test_mean_return_on_our_list(policy: str, mean: float, won: float) -> None:
    games = list(collect("wordle", policy, GAMES, seed=1))
    returns = np.array([game.total_return for game in games])
    assert len(returns) == GAMES
    assert abs(returns.mean() - mean) < max(4 * returns.std() / math.sqrt(GAMES), 0.01) < 0.05
    assert abs(np.mean([game.metadata["success"] for game in games]) - won) < 0.015
    assert all((game.total_return > -6) == game.metadata["success"] for game in games)


@pytest.mark.parametrize("feedback", ["lax", "strict"])
@pytest.mark.parametrize("observation", ["colours", "tiles"])
@pytest.mark.parametrize("policy_name", POLICIES)
def test_fast_games_are_the_games_turn_by_turn(policy_name: str, feedback: str, observation: str) -> None:
    options = {"feedback": feedback, "observation": observation}
    policy = make_policy("wordle", policy_name, env_options=options)
    player = wordle(**options).block_player(policy)
    assert player is not None
    fast = player.play(seed=5, block=2)
    policy.seed(derive_seed(5, 1, 2))
    pinned = [{"secret": game.metadata["secret"]} for game in fast]
    slow = rollout([make("wordle", **options) for _ in fast], policy, [0] * len(fast), pinned)
    assert slow == fast
    assert {game.ended for game in fast} == {"terminated"}


def test_consistent_policies_never_contradict_the_feedback() -> None:
    env = wordle(feedback="strict")
    for policy in ("random-consistent", "mixture"):
        contradictions = 0
        for game in collect("wordle", policy, 300, env_options={"feedback": "strict"}):
            env.reset(options={"secret": game.metadata["secret"]})
            for turn in game.agent_turns:
                contradictions += not env._consistent[0, env.lexicon.index[turn.text.replace(" ", "").strip()]]
                env.step(turn.text)
        assert (contradictions == 0) == (policy == "random-consistent")


def test_mixture_q_goes_from_random_to_random_consistent() -> None:
    def mean(q: float) -> float:
        policy = make_policy("wordle", "mixture", q=q)
        assert policy.name == f"mixture-{q:g}"
        return float(np.mean([game.total_return for game in collect("wordle", policy, 4096)]))

    assert abs(mean(0.0) + 5.954) < 0.03
    assert abs(mean(1.0) + 2.374) < 0.06
    assert -5.9 < mean(0.1) < mean(0.6) < -2.5


@pytest.mark.parametrize("q", [-0.1, 1.1, float("nan"), "half", True])
def test_bad_q(q: object) -> None:
    with pytest.raises(ConfigError, match="not a probability"):
        make_policy("wordle", "mixture", q=q)


def test_random_consistent_is_uniform_over_what_fits() -> None:
    words = ["crane", "brace", "trace", "grace", "place"]
    policy = make_policy("wordle", "random-consistent", env_options={"words": words}, seed=3)
    assert isinstance(policy, WordlePolicy)
    consistent = np.array([[False, True, True, False, True]] * 9000 + [[True, False, False, False, False]] * 10)
    chosen = policy.choose(consistent)
    assert set(chosen[9000:].tolist()) == {0}
    counts = np.bincount(chosen[:9000], minlength=5)
    assert counts[[0, 3]].tolist() == [0, 0]
    assert abs(counts[[1, 2, 4]] - 3000).max() < 5 * math.sqrt(9000 * 2 / 9)


def naive_greedy(env: Wordle, fitting: list[int]) -> int:
    """Entropy of the answer by dictionary, words that fit first among equals."""
    best, best_key = -1, (-1.0, False)
    for guess in range(len(env.lexicon)):
        counts: dict[int, int] = {}
        for secret in fitting:
            code = int(env.lexicon.table[guess, secret])
            counts[code] = counts.get(code, 0) + 1
        entropy = -sum(c / len(fitting) * math.log2(c / len(fitting)) for c in counts.values())
        key = (round(entropy, 9), guess in fitting)
        if key > best_key:
            best, best_key = guess, key
    return best


def test_greedy_information_against_a_naive_one() -> None:
    env = wordle()
    policy = make_policy("wordle", "greedy-information")
    assert isinstance(policy, WordlePolicy)
    drawn = np.random.default_rng(0)
    for size in (1, 2, 3, 10, 60, len(env.lexicon)):
        fitting = sorted(drawn.choice(len(env.lexicon), size, replace=False).tolist())
        consistent = np.zeros((2, len(env.lexicon)), bool)
        consistent[:, fitting] = True
        assert policy.choose(consistent).tolist() == [naive_greedy(env, fitting)] * 2


def test_seed_restarts_a_policy() -> None:
    history = Trajectory([Turn("user", "Wordle:\n")])
    for name in POLICIES:
        policy = make_policy("wordle", name, seed=4)
        first = policy.act([history] * 20)
        second = policy.act([history] * 20)
        policy.seed(4)
        assert policy.act([history] * 20) == first
        assert make_policy("wordle", name, seed=4).act([history] * 20) == first
        if name != "greedy-information":
            assert second != first
            policy.seed(5)
            assert policy.act([history] * 20) != first


def test_invalid_guesses_in_a_history_tell_nothing() -> None:
    policy = make_policy("wordle", "random-consistent", env_options={"words": ["crane", "brace", "trace"]})
    history = [Turn("user", "Wordle:\n"), Turn("assistant", "zzzzz"), Turn("user", "\n")]
    assert len(set(policy.act([Trajectory(history)] * 50))) == 3
    history += [Turn("assistant", "brace"), Turn("user", "b g g y g\n")]
    assert set(policy.act([Trajectory(history)] * 50)) == {"c r a n e\n"}


@pytest.mark.parametrize(
    ("guess", "answer", "message"),
    [
        ("crane", "g g g g b\n", "no word fits"),
        ("other", "b b b b b\n", "cannot read the turn 'other'"),
        ("crane", "b b b b\n", "cannot read"),
        ("crane", "r r r r r\n", "cannot read"),
    ],
)
def test_a_history_of_another_game_is_refused(guess: str, answer: str, message: str) -> None:
    policy = make_policy("wordle", "random-consistent", env_options={"words": ["crane", "brace"]})
    turns = [Turn("user", "Wordle:\n"), Turn("assistant", guess), Turn("user", answer)]
    with pytest.raises(DataError, match=message):
        policy.act([Trajectory(turns)])


def test_a_policy_of_other_words_is_refused() -> None:
    policy = make_policy("wordle", "random", env_options={"words": ["crane", "brace"]})
    for options in ({}, {"words": ["crane", "trace"]}):
        with pytest.raises(ConfigError, match="other words"):
            next(collect("wordle", policy, 1, env_options=options))
    strict = make_policy("wordle", "random", env_options={"feedback": "strict"})
    with pytest.raises(ConfigError, match="another feedback rule"):
        next(collect("wordle", strict, 1))


def test_one_word_vocabulary() -> None:
    for name, feedback in product(POLICIES, ("lax", "strict")):
        games = collect("wordle", name, 3, env_options={"words": ["crane"], "feedback": feedback})
        assert [game.total_return for game in games] == [0.0] * 3
