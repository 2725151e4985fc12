"""The adapter to the original's game files, with a stand-in for its engine; with the engine itself where there is one."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from qsft.envs import EpisodeError, make, make_policy
from qsft.envs.alfworld.engine import Game
from qsft.envs.alfworld.houses import generate
from qsft.envs.alfworld.spec import Spec
from qsft.envs.alfworld.texts import WORDINGS
from qsft.envs.rollout import rollout
from qsft.errors import ConfigError
from tests.envs.alfworld import original_engine

NAME = "qsft.envs.alfworld.original:OriginalALFWorld"
#: of a rule that both of the original's grammars have
OVERVIEW = '"overview(o, r)" :: "{o.name} (in/on the {r.name})"'
GAMES = {"a/trial_1": "train/pick_and_place_simple/1", "b/trial_2": "train/look_at_obj_in_light/2"}


class State(dict):
    feedback: str


class StandIn:
    """What ``textworld.start`` returns, as far as the adapter uses it; the game is in the file."""

    def __init__(self, path: str) -> None:
        self.load(path)

    def load(self, path: str) -> None:
        self.game = Game(Spec.from_dict(json.loads(Path(path).read_text())["spec"]), WORDINGS["move"])

    def close(self) -> None:
        self.closed = True

    def reset(self) -> State:
        return self._state(self.game.intro)

    def step(self, command: str) -> tuple[State, int, bool]:
        state = self._state("\n" + self.game.step(command) + "\n")
        return state, int(state["won"]), state["won"]

    def _state(self, feedback: str) -> State:
        state = State(won=self.game.won, admissible_commands=self.game.admissible)
        state.feedback = feedback
        return state


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for place, name in GAMES.items():
        write(
            tmp_path / place,
            {"grammar": f"{OVERVIEW} move {{o}} to {{r}}", "spec": generate(name).to_dict(), "solvable": True},
        )
    write(tmp_path / "pick_and_place_with_movable_recep/trial_3", {"grammar": ""})
    write(tmp_path / "unsolved/trial_4", {"grammar": "", "solvable": False})
    return tmp_path


def write(place: Path, game: dict[str, Any]) -> None:
    place.mkdir(parents=True)
    (place / "game.tw-pddl").write_text(json.dumps(game))


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    textworld = ModuleType("textworld")
    textworld.EnvInfos = SimpleNamespace  # type: ignore[attr-defined]
    textworld.start = lambda path, infos, wrappers: StandIn(path)  # type: ignore[attr-defined]
    module = "alfworld.agents.environment.alfred_tw_env"
    wrapper = ModuleType(module)
    wrapper.AlfredDemangler = object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "textworld", textworld)
    for parent in ("alfworld", "alfworld.agents", "alfworld.agents.environment"):
        monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
    monkeypatch.setitem(sys.modules, module, wrapper)


@pytest.mark.usefixtures("stand_in")
def test_games_of_a_folder_are_played_as_ours(folder: Path) -> None:
    env = make(NAME, folder=folder)
    assert env.games == list(GAMES)
    assert env.wording == WORDINGS["move"]
    expert = make_policy(NAME, "expert", env_options={"folder": folder})
    for place, name in GAMES.items():
        (theirs,) = rollout([env], expert, [0], [{"game": place}])
        (ours,) = rollout([make("alfworld")], expert, [0], [{"game": name}])
        assert theirs.turns == ours.turns
        assert (theirs.ended, theirs.metadata) == ("terminated", {"game": place, "success": True})
    assert {rollout([env], expert, [seed])[0].metadata["game"] for seed in range(12)} == set(GAMES)
    short = make(NAME, folder=folder, max_steps=2)
    _, info = short.reset(seed=0)
    assert "look" in info["admissible_commands"]
    assert short.step("look")[1:4] == (0.0, False, False)
    assert short.step("nonsense")[:4] == ("Nothing happens.", 0.0, False, True)
    with pytest.raises(EpisodeError):
        short.step("look")
    with pytest.raises(ConfigError, match="game 'c' is not in"):
        env.reset(options={"game": "c"})


def test_the_older_wording_is_seen(tmp_path: Path) -> None:
    write(tmp_path / "x", {"grammar": f"{OVERVIEW} put {{o}} in/on {{r}}"})
    assert make(NAME, folder=tmp_path).wording == WORDINGS["put"]


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="alfworld-download"):
        make(NAME, folder=tmp_path / "nowhere")
    write(tmp_path / "x", {"spec": 1})
    with pytest.raises(ConfigError, match=r"game\.tw-pddl: field grammar is missing"):
        make(NAME, folder=tmp_path)
    (tmp_path / "x/game.tw-pddl").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        make(NAME, folder=tmp_path)
    with pytest.raises(ConfigError, match="max_steps"):
        make(NAME, folder=tmp_path, max_steps=0)


def test_the_package_is_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "textworld", None)
    with pytest.raises(ConfigError, match="pip install alfworld"):
        make(NAME, folder=folder).reset(seed=0)


@pytest.mark.skipif(importlib.util.find_spec("alfworld") is None, reason="alfworld is not installed")
def test_a_game_file_in_the_original_engine(tmp_path: Path) -> None:
    for place, name in GAMES.items():
        write(tmp_path / place, original_engine.game_file(generate(name)))
    env = make(NAME, folder=tmp_path)
    expert = make_policy(NAME, "expert", env_options={"folder": tmp_path})
    for place, name in [*GAMES.items(), *GAMES.items()]:
        (theirs,) = rollout([env], expert, [0], [{"game": place}])
        (ours,) = rollout([make("alfworld")], expert, [0], [{"game": name}])
        assert theirs.turns == ours.turns
    libraries = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "downward" in line}
    assert len(libraries) <= 1
    env.close()
