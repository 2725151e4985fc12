"""Games that the original engine played, replayed step by step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qsft.envs import make

GOLDEN = Path(__file__).parents[4] / "shared/golden/alfworld"
FILES = sorted(GOLDEN.glob("*.json"))
pytestmark = pytest.mark.skipif(not FILES, reason="no golden vectors beside the checkout")


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_step(path: Path) -> None:
    game = load(path)
    commands = game["commands"]
    env = make("alfworld")
    observation, info = env.reset(options={"spec": game["spec"]})
    assert observation == game["initial"]["obs"]
    assert info["admissible_commands"] == [commands[i] for i in game["initial"]["admissible"]]
    for step in game["steps"]:
        observation, reward, terminated, truncated, info = env.step(step["action"])
        if step["action"].strip() == "help":
            assert observation.startswith("You can: ")
        else:
            assert observation == step["obs"]
        assert info["admissible_commands"] == [commands[i] for i in step["admissible"]]
        assert (reward, terminated, truncated) == (step["score"], step["done"], False)
    if terminated:
        assert info["success"] is True
        assert info["spec"] == game["spec"]
