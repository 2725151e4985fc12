"""The environments: texts and vectors, endings, pins, bad input."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from qsft.data.trajectory import Trajectory, Turn
from qsft.envs import EpisodeError
from qsft.envs.manipulation import BlockedDrawer, ClosedDrawer, Drawer, Manipulation, Pick, Place
from qsft.errors import ConfigError

TASKS = (Pick, Place, Drawer, ClosedDrawer, BlockedDrawer)
STAY = "a128 a128 a128 a128 a0\n"


@pytest.fixture(scope="module")
def pick() -> Pick:
    return Pick()


@pytest.fixture(scope="module")
def vectors() -> Place:
    return Place(observation="state")


@pytest.mark.parametrize("cls", TASKS)
def test_texts_tell_the_features(cls: type[Manipulation]) -> None:
    env = cls(state_bins=64)
    observation, info = env.reset(seed=1)
    assert info == {}
    assert re.fullmatch(r"s\d+( s\d+)*\n", observation)
    assert len(observation.split()) == len(env.features)
    seen = env.state_tokens.parse(observation)
    assert seen is not None
    assert (np.abs(seen - env.scene.features()) <= env.state_tokens.width / 2 + 1e-9).all()
    assert set(observation.replace("\n", " \n").split(" ")) | set(STAY.split()) <= set(env.symbols())
    assert len(env.symbols()) == 1 + 64 + 256
    assert list(env.features)[-2:] == (["target_x", "target_y"] if cls is Place else ["drawer", "locked"])


def test_an_episode_that_ends_at_the_limit(pick: Pick) -> None:
    pick.reset(seed=3)
    start = pick.scene.features()
    for _ in range(pick.max_turns - 1):
        assert pick.step(STAY)[1:] == (0.0, False, False, {})
    observation, reward, terminated, truncated, info = pick.step(STAY)
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert observation.endswith("\n")
    assert list(info) == ["success", "unstable", "effector", "cube", "drawer", "locked"]
    assert (info["success"], info["unstable"]) == (False, False)
    np.testing.assert_allclose(start[[0, 1, 2, 3, 5, 6, 7]], [*info["effector"], *info["cube"][:3]], atol=1e-3)
    with pytest.raises(EpisodeError, match="reset"):
        pick.step(STAY)


def test_success_ends_the_episode_with_reward_1(pick: Pick) -> None:
    pick.reset(options={"effector": [0.4, 0.0, 0.02, 0.0], "cube": [0.4, 0.0, 0.02, 0.0]})
    rewards = []
    for action in ["a128 a128 a128 a128 a1\n"] * 2 + ["a128 a128 a255 a128 a1\n"] * 4:
        _, reward, terminated, truncated, info = pick.step(action)
        rewards.append(reward)
        if terminated:
            break
    assert terminated and not truncated
    assert sum(rewards) == rewards[-1] == 1.0
    assert info["success"] is True
    assert pick.scene.cube[2] >= 0.12


@pytest.mark.parametrize("text", ["", "up\n", "a1 a2 a3 a4\n", "a1 a2 a3 a4 a5\n", "s1 s2 s3 s4 s1\n"])
def test_a_text_that_is_no_action_lets_a_step_pass(pick: Pick, text: str) -> None:
    pick.reset(seed=5)
    before = pick.scene.features()
    assert pick.step(text)[1:] == (0.0, False, False, {})
    np.testing.assert_allclose(pick.scene.features(), before, atol=5e-3)


def test_a_simulation_that_comes_apart_ends_the_episode(pick: Pick, vectors: Place) -> None:
    for env, action in ((pick, STAY), (vectors, np.zeros(5))):
        env.reset(seed=1)
        sound = env.step(action)[0]
        env.scene.data.qvel[:] = np.nan
        observation, reward, terminated, truncated, info = env.step(action)
        np.testing.assert_array_equal(observation, sound)
        assert (reward, terminated, truncated) == (0.0, True, False)
        assert (info["success"], info["unstable"]) == (False, True)
        env.reset(seed=1)
        np.testing.assert_array_equal(env.step(action)[0], sound)


@pytest.mark.parametrize("cls", TASKS)
def test_pins(cls: type[Manipulation]) -> None:
    env = cls()
    pins: dict[str, Any] = {"effector": [0.4, 0.0, 0.2, 0.1], "cube": [0.4, 0.1, 0.02, 0.2], "drawer": 0.05}
    pins |= {"locked": True, "target": [0.3, 0.0]}
    pins = {name: pins[name] for name in env.reset_options}
    first, _ = env.reset(seed=1, options=pins)
    second, _ = env.reset(seed=2, options=pins)
    assert first == second
    env.scene.data.qvel[:] = np.nan
    info = env.step(STAY)[-1]
    assert {name: info[name] for name in pins} == pins
    assert env.reset(seed=2, options=pins | {"locked": "true"})[0] == first, "as a command line gives it"
    third, _ = env.reset(seed=3, options={"drawer": 0.05})
    assert third != first
    assert env.scene.drawer == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cube": [0.4, 0.1, 0.02]}, "cube=[0.4, 0.1, 0.02]; give 4 numbers: 0.20 to 0.65"),
        ({"cube": [9, 0.1, 0.02, 0.0]}, "cube=[9, 0.1"),
        ({"cube": "middle"}, "cube='middle'"),
        ({"effector": [0.4, 0.1, float("nan"), 0.0]}, "effector=[0.4, 0.1, nan"),
        ({"drawer": 0.2}, "drawer=0.2; give 1 numbers: 0.00 to 0.16"),
        ({"locked": 1}, "locked=1 must be true or false"),
        ({"target": [0.3, 0.0]}, "unknown reset option 'target'"),
    ],
)
def test_bad_pins(pick: Pick, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        pick.reset(options=options)
    with pytest.raises(EpisodeError, match="no episode"):
        pick.step(STAY)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ([0, 0, 0, 0], "got shape (4,)"),
        ([[0, 0, 0, 0, 0]], "got shape (1, 5)"),
        ([0, 0, np.nan, 0, 0], "action nan in dimension 2 is not in [-1, 1]"),
        ([0, 0, 0, 1.01, 0], "action 1.01 in dimension 3"),
        ([-np.inf, 0, 0, 0, 0], "action -inf in dimension 0"),
        ("a1 a2 a3 a4 a5\n", "a vector of 5 numbers"),
        (None, "got"),
        ([10**400, 0, 0, 0, 0], "a vector of 5 numbers"),
    ],
)
def test_bad_vectors(vectors: Place, action: Any, message: str) -> None:
    vectors.reset(seed=1)
    with pytest.raises(EpisodeError, match=re.escape(message)):
        vectors.step(action)


def test_vectors_instead_of_texts(vectors: Place) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that features have no bounds of their own
        check_env(vectors, skip_render_check=True)
    observation, _ = vectors.reset(seed=1)
    assert observation.dtype == np.float32
    np.testing.assert_allclose(observation, vectors.scene.features(), atol=1e-6)
    with pytest.raises(EpisodeError, match="reset"):
        Pick(observation="state").step(np.zeros(5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"observation": "sound"}, "pick: observation='sound' is unknown; use one of tokens, picture, state, image"),
        ({"state_bins": 0}, "bins: 0 in dimension 0"),
        ({"action_bins": 2.7}, "bins: [2.7, 2.7, 2.7, 2.7, 2]; give whole numbers"),
        ({"action_bins": "x"}, "give whole numbers"),
        ({"observation": "image", "image_size": 8}, "image_size: 8; give 16 to 512 pixels"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        Pick(**options)


def test_whole_actions_are_too_many_symbols(pick: Pick) -> None:
    with pytest.raises(ConfigError, match="too many"):
        pick.symbols(whole_actions=True)


def test_the_text_pipeline_reads_an_episode(pick: Pick) -> None:
    from qsft.data.tokenize import TrajectoryTokenizer
    from qsft.models.scratch import word_level_tokenizer

    words = word_level_tokenizer(pick.symbols())
    observation, _ = pick.reset(seed=1)
    action = "a17 a250 a3 a128 a1\n"
    after, reward, *_ = pick.step(action)
    game = Trajectory([Turn("user", observation), Turn("assistant", action, reward), Turn("user", after)], "truncated")
    row = TrajectoryTokenizer(words)(game)
    assert words.unk_token_id not in row["input_ids"]
    said = [token for token, mine in zip(row["input_ids"], row["agent_mask"], strict=True) if mine]
    assert words.convert_ids_to_tokens(said) == ["a17", "a250", "a3", "a128", "a1", "\n"]
    assert words.decode(row["input_ids"][1:]) == observation + action + after
