"""Pictures in and symbols out: what a robot transformer with images plays, and the data for it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from PIL import Image

from qsft.envs import symbols
from qsft.envs.collect import Collection
from qsft.envs.manipulation import Pick
from qsft.envs.manipulation.pictures import Pictures

OPTIONS = {"observation": "picture", "action_bins": 32, "image_size": 32}


@pytest.mark.usefixtures("opengl")
def test_an_episode_of_pictures() -> None:
    env = Pick(**OPTIONS)
    check_env(env, skip_render_check=True)
    observation, _ = env.reset(seed=1)
    assert observation["text"] == "\n"
    np.testing.assert_array_equal(observation["image"], Pictures(32).of(env.scene))
    moved, reward, terminated, truncated, _ = env.step("a16 a16 a31 a16 a0\n")
    assert (moved["image"] != observation["image"]).any()
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert symbols("pick", **OPTIONS) == ["\n", *(f"a{i}" for i in range(32))]


@pytest.mark.usefixtures("opengl")
def test_scripted_episodes_are_those_of_symbols_with_pictures_in_their_place() -> None:
    shown = Collection("pick", "noisy", 3, {**OPTIONS, "wrist": True}).block(0)[:2]
    told = Collection("pick", "noisy", 3, {"action_bins": 32}).block(0)[:2]
    for seen, read in zip(shown, told, strict=True):
        assert [turn.text for turn in seen.turns if turn.is_agent] == [
            turn.text for turn in read.turns if turn.is_agent
        ]
        assert seen.rewards == read.rewards and seen.ended == read.ended
        turns = [turn for turn in seen.turns if not turn.is_agent]
        assert {turn.text for turn in turns} == {"\n"}
        pixels = [[np.asarray(Image.open(io.BytesIO(image))) for image in turn.images] for turn in turns]
        np.testing.assert_array_equal(pixels, Pictures(32, wrist=True).of_states(read.metadata["states"]))
