"""Collected episodes as films and as Minari data sets."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qsft.cli import main
from qsft.data import Trajectory, write_trajectories
from qsft.envs import make
from qsft.envs.collect import Collection, collect
from qsft.envs.manipulation.collect import ManipulationPlayer
from qsft.envs.manipulation.pictures import episode_pictures
from qsft.errors import DataError

PAGE = Path(__file__).parents[3] / "docs/commands/video.md"
OPTIONS = {"state_bins": 32, "action_bins": 16}


class Upwards:
    """No scripted policy: its episodes hold no states."""

    name = "upwards"

    def act(self, histories: Sequence[Trajectory]) -> list[str]:
        return ["a8 a8 a15 a8 a1\n"] * len(histories)

    def seed(self, seed: int) -> None:
        pass


@pytest.fixture(scope="module")
def games() -> list[Trajectory]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ManipulationPlayer, "size", 2)
        return Collection("drawer", "oracle", env_options=OPTIONS).block(0)


def test_minari_holds_what_was_done_and_seen(games: list[Trajectory], tmp_path: Path) -> None:
    minari = pytest.importorskip("minari")
    pytest.importorskip("h5py")
    from qsft.data.minari import write_minari

    write_trajectories(tmp_path / "drawer.jsonl", games)
    assert write_minari(tmp_path / "drawer.jsonl", tmp_path / "drawer") == 2
    dataset = minari.MinariDataset(tmp_path / "drawer/data")
    env = make("drawer", observation="state")
    assert dataset.action_space == env.action_space
    widths = make("drawer", **OPTIONS).state_tokens.width
    for game, episode in zip(games, dataset.iterate_episodes(), strict=True):
        seen, _ = env.reset(options={name: game.metadata[name] for name in env.reset_options})
        assert len(episode.observations) == len(episode.actions) + 1 == len(game.rewards) + 1
        for step, action in enumerate(episode.actions):
            assert (np.abs(episode.observations[step] - seen) <= widths / 2 + 1e-3).all()
            seen, reward, terminated, truncated, _ = env.step(action)
            assert (reward, terminated, truncated) == (
                episode.rewards[step],
                episode.terminations[step],
                episode.truncations[step],
            )


@pytest.mark.usefixtures("opengl")
def test_films_of_any_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("qsft.envs.collect.RolloutPlayer.size", 1)
    (played,) = collect("drawer", Upwards(), 1, env_options=OPTIONS)
    assert "states" not in played.metadata
    pictures = episode_pictures(played, 32, OPTIONS)
    assert pictures.shape == (len(played.rewards) + 1, 32, 32, 3)
    env = make("drawer", observation="image", image_size=32)
    seen, _ = env.reset(options={name: played.metadata[name] for name in env.reset_options})
    tokens = make("drawer", **OPTIONS).action_tokens
    for picture, turn in zip(pictures, played.agent_turns, strict=False):
        assert (np.abs(picture.astype(int) - seen).max(-1) > 8).mean() < 0.01
        seen = env.step(tokens.parse(turn.text))[0]
    with pytest.raises(DataError, match=r"when it is played again, .* is seen instead of .*--env-option"):
        episode_pictures(played, 32, {**OPTIONS, "state_bins": 33})
    short = Trajectory(played.turns, "truncated", {"env": "drawer"})
    with pytest.raises(DataError, match="no effector in its metadata"):
        episode_pictures(short, 32)


@pytest.mark.usefixtures("opengl")
def test_the_commands_of_the_page(games: list[Trajectory], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    monkeypatch.chdir(tmp_path)
    write_trajectories("drawer.jsonl", games)
    mp4, gif, _ = re.findall(r"^qsft (video .*)$", PAGE.read_text(), re.MULTILINE)
    for command in (mp4 + " --size 32", gif.replace("192", "32")):
        assert main(shlex.split(command)) == 0
    assert Path("drawer.mp4").stat().st_size > 500
    with Image.open("drawer.gif") as film:
        assert film.size == (32, 32)
        assert film.n_frames >= len(games[1].rewards)
