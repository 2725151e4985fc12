"""The adapter to the original's visual mode, against a stand-in with the package's interface."""

from __future__ import annotations

import sys
import threading
import types
from pathlib import Path
from queue import Queue
from typing import Any, ClassVar

import numpy as np
import pytest

from qsft.envs import EpisodeError, make
from qsft.envs.alfworld.thor import ThorALFWorld
from qsft.errors import ConfigError

NAME = "qsft.envs.alfworld.thor:ThorALFWorld"
GAMES = ("pick_heat_then_place_in_recep-Egg-None-Shelf-7/trial_1", "look_at_obj_in_light-Pen-None-Lamp-3/trial_2")
FIRST = "-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room. ...\n\nYour task is to: heat an egg"
TASK = "Your task is to: heat an egg"


class Thor(threading.Thread):
    """As ``AlfredThorEnv.Thor`` of alfworld 0.4: the same methods, and it reads the same settings."""

    started: ClassVar[list[Thor]] = []

    def __init__(self, queue: Queue, train_eval: str = "train") -> None:
        super().__init__()
        assert train_eval != "train", "in training it runs an expert beside the game"
        self.started.append(self)
        self.tasks: list[str] = []
        self.said: list[str] = []
        self.env = self  # has stop()
        self.stopped = False

    def init_env(self, config: dict[str, Any]) -> None:
        window = config["env"]["thor"]
        self.size = window["screen_height"], window["screen_width"]
        assert not window["smooth_nav"] and not window["save_frames_to_disk"] and window["save_frames_path"] == ""
        assert config["controller"] == {"type": "oracle", "load_receps": True, "debug": False}
        assert config["env"]["goal_desc_human_anns_prob"] == 0
        assert config["general"]["training_method"] == "dqn"
        self.limit = config["rl"]["training"]["max_nb_steps_per_episode"]

    def reset(self, task_file: str) -> None:
        assert Path(task_file).is_file()
        self.tasks.append(task_file)
        self.steps, self.won = 0, False
        self.result(FIRST)

    def step(self, action: str) -> None:
        if not self.done:
            self.said.append(action)
            self.won = action == "put egg 1 in/on shelf 1"
            self.result("You put the egg 1 in/on the shelf 1." if self.won else "Nothing happens.")
        self.steps += 1

    def result(self, feedback: str) -> None:
        self.done = self.won or self.steps > self.limit
        self.results = (feedback, self.done, ["look", "inventory"], self.won, 0.5, [])

    def get_results(self) -> tuple:
        return self.results

    def get_last_frame(self) -> np.ndarray:
        frame = np.zeros((*self.size, 3), np.uint8)
        frame[..., 0] = 250  # a red room, as the package gives it: blue, green, red
        return frame[:, :, ::-1]

    def stop(self) -> None:
        self.stopped = True


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the original's games, and the stand-in for its package."""
    for game in (*GAMES, "pick_and_place_simple-AppleSliced-None-Shelf-1/trial_3"):
        (tmp_path / game).mkdir(parents=True)
        (tmp_path / game / "traj_data.json").write_text("{}")
    module = types.ModuleType("alfred_thor_env")
    module.AlfredThorEnv = types.SimpleNamespace(Thor=Thor)  # type: ignore[attr-defined]
    for name in ("alfworld", "alfworld.agents", "alfworld.agents.environment"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "alfworld.agents.environment.alfred_thor_env", module)
    monkeypatch.setattr(Thor, "started", [])
    return tmp_path


def test_a_game(folder: Path) -> None:
    env = make(NAME, folder=folder, max_steps=3, image_size=40)
    assert isinstance(env, ThorALFWorld)
    assert env.games == sorted(GAMES)
    assert not Thor.started, "nothing is started before it is needed"
    with pytest.raises(EpisodeError):
        env.step("look")
    observation, info = env.reset(options={"game": GAMES[0]})
    assert observation["text"] == FIRST
    assert observation["image"].shape == (40, 40, 3) and observation["image"].dtype == np.uint8
    assert observation["image"][0, 0].tolist() == [250, 0, 0], "red, green, blue"
    assert info == {"admissible_commands": ["look", "inventory"]}
    assert env.step("fly\n")[0]["text"] == f"Nothing happens.\n{TASK}"
    observation, reward, terminated, truncated, info = env.step("Thought: there.\nAction: put egg 1 in/on shelf 1")
    assert observation["text"].startswith("You put the egg 1")
    assert (reward, terminated, truncated, info["success"], info["game"]) == (1.0, True, False, True, GAMES[0])
    assert env.kind(info) == "pick_heat_then_place_in_recep"
    (thor,) = Thor.started
    assert thor.said == ["fly", "put egg 1 in/on shelf 1"]
    env.reset(seed=0)
    assert [env.step("look")[3] for _ in range(3)] == [False, False, True]
    assert len(Thor.started) == 1, "one engine for all games"
    env.close()
    assert thor.stopped


def test_withheld_text(folder: Path) -> None:
    env = make(NAME, folder=folder, text="withheld")
    assert env.reset(seed=1)[0]["text"] == TASK
    assert env.step("look")[0]["text"] == TASK


def test_bad_input(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="text='none'"):
        make(NAME, folder=folder, text="none")
    with pytest.raises(ConfigError, match="image_size=0"):
        make(NAME, folder=folder, image_size=0)
    with pytest.raises(ConfigError, match="no traj_data.json that can be played"):
        make(NAME, folder=folder / "nowhere")
    env = make(NAME, folder=folder)
    with pytest.raises(ConfigError, match="game 'x' is not in"):
        env.reset(options={"game": "x"})
    broken = folder / env.games[0] / "traj_data.json"
    whole = broken.read_text()
    broken.write_text(whole[:-1])
    with pytest.raises(ConfigError, match=f"{broken}: cannot be read .*download it again"):
        env.reset(options={"game": env.games[0]})
    broken.write_text(whole)
    monkeypatch.setitem(sys.modules, "alfworld.agents.environment.alfred_thor_env", None)
    with pytest.raises(ConfigError, match=r"pip install 'alfworld\[vis\]'"):
        env.reset(seed=0)
