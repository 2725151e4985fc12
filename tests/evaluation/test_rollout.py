"""Batched episodes against the same episodes one by one."""

import itertools

import gymnasium
import pytest

from qsft.data.trajectory import Trajectory, Turn
from qsft.envs.base import EpisodeError
from qsft.envs.rollout import derive_seed, play
from qsft.errors import ConfigError, UnansweredTurns
from qsft.evaluation import episode_seed, failed, rollout
from tests.evaluation.toys import Counting, Dice, Guess


def alone(seed, episode):
    """One game of Counting, written down by hand."""
    env = Guess()
    observation, _ = env.reset(seed=episode_seed(seed, episode))
    turns, guess = [Turn("user", observation)], 0
    while True:
        guess += 1
        observation, reward, terminated, truncated, info = env.step(str(guess))
        turns += [Turn("assistant", str(guess), reward), Turn("user", observation)]
        if terminated or truncated:
            metadata = {"env": "guess", "policy": "counting", "seed": seed, "episode": episode, **info, "turns": guess}
            return Trajectory(turns, "terminated" if terminated else "truncated", metadata)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_equals_games_played_alone_whatever_the_batch(batch_size):
    expected = [alone(7, episode) for episode in range(20)]
    assert list(rollout(Counting(), Guess, 20, 7, batch_size)) == expected
    assert {trajectory.ended for trajectory in expected} == {"terminated", "truncated"}


def test_every_policy_and_every_count_plays_the_same_episodes():
    secrets = [t.metadata["secret"] for t in rollout(Counting(), Guess, 30, 1)]
    assert [t.metadata["secret"] for t in rollout(Dice(), Guess, 40, 1, 8)][:30] == secrets
    assert [t.metadata["secret"] for t in rollout(Counting(), Guess, 30, 2)] != secrets


def test_evaluation_does_not_play_the_episodes_that_collection_plays():
    collected = {derive_seed(5, purpose, episode) for purpose in (0, 1) for episode in range(1000)}
    assert not collected & {episode_seed(5, episode) for episode in range(1000)}


def test_the_batch_is_refilled_and_environments_are_used_again():
    made = []

    def factory():
        made.append(Guess())
        return made[-1]

    policy = Counting()
    played = list(rollout(policy, factory, 50, 0, batch_size=8))
    assert len(made) == 8
    turns = sum(t.metadata["turns"] for t in played)
    assert sum(policy.asked) == turns
    # As long as games are waiting, every place is taken; only the last few turns are played with fewer.
    full = [n for n in policy.asked if n == 8]
    assert policy.asked[: len(full)] == full
    assert len(policy.asked) - len(full) <= Guess.max_turns


def test_policy_is_seeded_once_and_stochastic_play_repeats():
    first, second, other = (
        [[turn.text for turn in t.turns] for t in rollout(Dice(), Guess, 30, seed, 8)] for seed in (3, 3, 4)
    )
    assert first == second != other
    policy = Counting()
    list(rollout(policy, Guess, 5, 3))
    assert policy.seeds == [3]


def test_no_policy_sees_the_secret():
    policy = Counting()
    list(rollout(policy, Guess, 10, 0))
    assert policy.seen
    assert not any(policy.seen), "nothing but what was said"


class Breaking(Guess):
    """Raises at the second guess when the secret is 5, and at reset when it is 6; counts who is alive."""

    closed = 0

    def reset(self, *, seed=None, options=None):
        result = super().reset(seed=seed, options=options)
        if self.secret == 6:
            raise OSError("no board")
        return result

    def step(self, action):
        if self.secret == 5 and self.turns == 1:
            raise RuntimeError("pieces lost")
        return super().step(action)

    def close(self):
        Breaking.closed += 1


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_a_broken_episode_is_marked_and_the_others_go_on(batch_size, caplog):
    Breaking.closed = 0
    made = []

    def factory():
        made.append(Breaking())
        return made[-1]

    healthy = list(rollout(Counting(), Guess, 40, 0))
    played = list(rollout(Counting(), factory, 40, 0, batch_size))
    assert [t.metadata["episode"] for t in played] == list(range(40))
    for mended, broken in zip(healthy, played, strict=True):
        secret = mended.metadata["secret"]
        if secret == 5:
            assert broken.metadata["error"] == "RuntimeError: pieces lost"
            assert [turn.reward for turn in broken.agent_turns] == [-1.0, None]
        elif secret == 6:
            assert broken.metadata["error"] == "OSError: no board"
            assert broken.turns == []
        else:
            assert broken == mended
            continue
        assert broken.ended is None
        assert "success" not in broken.metadata
        assert broken.metadata["turns"] == len(list(broken.agent_turns))
    bad = failed(played)
    assert len(bad) == sum(t.metadata["secret"] in (5, 6) for t in healthy) > 0
    # Each kind is told once, every environment that broke is replaced, and all are closed in the end.
    assert sorted(r.getMessage().split("failed: ")[1] for r in caplog.records) == [
        "OSError: no board",
        "RuntimeError: pieces lost",
    ]
    assert len(made) <= batch_size + len(bad)
    assert Breaking.closed == len(made)


def test_a_reward_that_is_no_number_is_an_error_of_the_episode():
    class NoReward(Guess):
        def step(self, action):
            return "hm\n", float("nan"), False, False, {}

    (played,) = rollout(Counting(), NoReward, 1, 0)
    assert played.metadata["error"] == "ValueError: reward nan is not finite"


def test_errors_that_are_not_the_environments_are_raised():
    class Silent(Counting):
        def act(self, histories):
            return []

    class Broken(Counting):
        def act(self, histories):
            raise ZeroDivisionError

    class Nameless(Guess):
        def step(self, action):
            return "", 0.0, True, False, {}

    class Numbers(Guess):
        def reset(self, *, seed=None, options=None):
            return 4, {}

    for policy, env, error, message in [
        (Silent(), Guess, EpisodeError, "0 actions for 2 histories"),
        (Broken(), Guess, ZeroDivisionError, None),
        (Counting(), Nameless, ConfigError, "success"),
        (Counting(), Numbers, ConfigError, "observation is a int"),
    ]:
        with pytest.raises(error, match=message):
            list(rollout(policy, env, 2, 0))


def test_when_a_policy_fails_all_that_is_over_is_yielded_before():
    """Also the episodes behind one that still goes on."""

    class Mortal(Counting):
        def act(self, histories):
            if len(self.asked) == 3:
                raise ZeroDivisionError
            return super().act(histories)

    games = list(rollout(Counting(), Guess, 40, 0))
    over = [t for t in games if t.metadata["turns"] <= 3]
    numbers = [t.metadata["episode"] for t in over]
    assert numbers[-1] >= len(over), "one before the last is still in play"
    rolling = rollout(Mortal(), Guess, 40, 0, 40)
    assert list(itertools.islice(rolling, len(over))) == over
    with pytest.raises(ZeroDivisionError):
        next(rolling)


def test_an_episode_without_an_action_is_marked_and_the_others_go_on():
    class Choosy(Counting):
        def act(self, histories):
            actions = super().act(histories)
            lost = {i: OSError("refused") for i, text in enumerate(actions) if text == "3"}
            if lost:
                raise UnansweredTurns([None if i in lost else text for i, text in enumerate(actions)], lost)
            return actions

    for played, healthy in zip(rollout(Choosy(), Guess, 40, 0, 7), rollout(Counting(), Guess, 40, 0, 7), strict=True):
        if healthy.metadata["secret"] > 2:
            assert played.metadata["error"] == "OSError: refused"
            assert [turn.text for turn in played.agent_turns] == ["1", "2"]
        else:
            assert played == healthy
    with pytest.raises(UnansweredTurns, match="refused"):
        list(play(Choosy(), range(40), Guess, 40))


def test_what_is_wrong_with_every_episode_ends_it_at_once():
    class Missing(Guess):
        made = 0

        def reset(self, *, seed=None, options=None):
            Missing.made += 1
            raise ConfigError("the engine is not installed")

    with pytest.raises(ConfigError, match="not installed"):
        list(rollout(Counting(), Missing, 40, 0, 4))
    assert Missing.made == 1


def test_bad_arguments_fail_at_the_call():
    for episodes, seed, batch_size in [(0, 0, 1), (1, -1, 1), (1, 0, 0)]:
        with pytest.raises(ConfigError):
            rollout(Counting(), Guess, episodes, seed, batch_size)


def test_stopping_early_closes_the_environments():
    Breaking.closed = 0
    games = rollout(Counting(), Breaking, 20, 3, 4)
    next(games)
    games.close()
    assert Breaking.closed >= 4


def test_wrapped_and_foreign_environments_have_a_name():
    class Foreign(gymnasium.Env):
        def reset(self, *, seed=None, options=None):
            return "go\n", {}

        def step(self, action):
            return "", 1.0, True, False, {"success": True}

    (wrapped,) = rollout(Counting(), lambda: gymnasium.Wrapper(Guess()), 1, 0)
    assert wrapped.metadata["env"] == "guess"
    assert "secret" in wrapped.metadata
    (foreign,) = rollout(Counting(), Foreign, 1, 0)
    assert foreign.metadata["env"] == "Foreign"
    assert [turn.text for turn in foreign.turns] == ["go\n", "1"]


def test_the_bar_is_on_stderr_and_can_be_off(capsys, monkeypatch):
    monkeypatch.setattr("qsft.data.progress.PATIENCE", 0.0)
    list(rollout(Counting(), Guess, 20, 0, progress=False))
    assert capsys.readouterr() == ("", "")
    list(rollout(Counting(), Guess, 20, 0))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Playing counting" in shown.err
    assert "/s" in shown.err
