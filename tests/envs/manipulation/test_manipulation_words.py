"""Pictures in and symbols out: what a robot transformer with images plays, and the data for it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from PIL import Image

from qsft.envs import symbols
from qsft.envs.collect import Collection
from qsft.envs.manipulation import ClosedDrawer, Pick
from qsft.envs.manipulation.corpus import MOMENTS
from qsft.envs.manipulation.pictures import Pictures
from qsft.errors import ConfigError

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
    named = symbols("pick", state_bins=3, **OPTIONS)
    assert named == ["\n", "s0", "s1", "s2", *(f"a{i}" for i in range(32))]


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


@pytest.mark.usefixtures("opengl")
@pytest.mark.parametrize("wrist", [False, True])
def test_texts_to_pretrain_on_name_what_a_picture_shows(wrist: bool) -> None:
    env = ClosedDrawer(observation="picture", state_bins=64, action_bins=32, image_size=32, wrist=wrist)
    texts = list(env.corpus(3, seed=5))
    assert [text.turns for text in env.corpus(2, seed=5)] == [text.turns for text in texts[:2]]
    assert texts[0].turns != texts[1].turns != next(iter(env.corpus(1, seed=6))).turns
    known = set(symbols("closed-drawer", observation="picture", state_bins=64, action_bins=32, image_size=32))
    told = []
    for text in texts:
        assert len(text.turns) == 2 * MOMENTS and set(text.rewards) == {0.0}
        for seen, named in zip(text.turns[::2], text.turns[1::2], strict=True):
            assert (seen.is_agent, seen.text, len(seen.images), named.is_agent) == (False, "\n", 1 + wrist, True)
            assert set(named.text.split()) <= known
            told.append(env.state_tokens.parse(named.text))
    told = np.array(told)
    assert (told.std(0)[:9] > 0.005).all(), "everything that moves is seen at several places"
    # the cube that a picture shows is the one that is told: its column goes with y
    columns = []
    for text in texts:
        for seen in text.turns[::2]:
            pixels = np.asarray(Image.open(io.BytesIO(seen.images[0]))).astype(int)
            _, column = np.nonzero((pixels[..., 0] > 90) & (pixels[..., 0] > 2 * pixels[..., 1]))
            columns.append(column.mean() if len(column) else np.nan)
    visible = ~np.isnan(columns)
    assert visible.sum() > 10
    assert np.corrcoef(np.array(columns)[visible], told[visible, 6])[0, 1] > 0.9


def test_only_pictures_have_texts_to_pretrain_on() -> None:
    with pytest.raises(ConfigError, match="set observation='picture'"):
        Pick().corpus(1)
