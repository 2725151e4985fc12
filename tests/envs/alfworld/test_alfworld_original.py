"""Our engine and the original's play the same games: every observation, command list, score and ending is equal.

Runs where PyPI ``alfworld`` is installed (about a second a game). ``QSFT_ALFWORLD_GAMES`` says how many games are
compared, 12 unless told otherwise.
"""

from __future__ import annotations

import os
import random

import pytest

from qsft.data.trajectory import AGENT_ROLE, Trajectory, Turn
from qsft.envs import make
from qsft.envs.alfworld.houses import SPLITS, game_name, generate
from qsft.envs.alfworld.policies import ExpertPolicy
from qsft.envs.alfworld.spec import TASK_TYPES
from tests.envs.alfworld import original_engine

pytest.importorskip("alfworld")
GAMES = int(os.environ.get("QSFT_ALFWORLD_GAMES", "12"))
NONSENSE = ["", "LOOK", "go to", "take nothing from shelf 1", "put book 1 in/on desk 1", "move book 1 to desk 1", "fly"]


def at_random(commands: list[str], drawn: random.Random) -> str:
    """A command, each verb as likely, so that there is more than going about; now and then one that is none."""
    if drawn.random() < 0.1:
        return drawn.choice(NONSENSE)
    verb = drawn.choice(sorted({command.split()[0] for command in commands}))
    return drawn.choice([command for command in commands if command.split()[0] == verb])


@pytest.mark.parametrize("number", range(GAMES))
def test_game(number: int) -> None:
    """Three of four games are played by the expert with random moves between, the others at random."""
    task_type = TASK_TYPES[number % len(TASK_TYPES)]
    wording = "put" if number % 5 == 4 else "move"
    name = game_name(SPLITS[number // len(TASK_TYPES) % 3], task_type, number)
    drawn = random.Random(number)
    noise = (0.1, 0.3, 0.6, 1.0)[(number // len(TASK_TYPES)) % 4]

    original, expected, commands = original_engine.start(generate(name), wording)
    env = make("alfworld", wording=wording, max_steps=30)
    expert = ExpertPolicy(env)
    observation, info = env.reset(options={"game": name})
    assert observation == expected.strip()
    assert info["admissible_commands"] == commands
    history = Trajectory([Turn("user", observation)])
    over = False
    while not over:
        if drawn.random() < noise:
            action = at_random(info["admissible_commands"], drawn)
        else:
            action = expert.act([history])[0].strip()
        state, score, done = original.step(action)
        observation, reward, terminated, truncated, info = env.step(action)
        if action != "help":
            assert observation == state.feedback.strip(), action
        assert info["admissible_commands"] == state["admissible_commands"], action
        assert (reward, terminated) == (score, done), action
        history.turns += [Turn(AGENT_ROLE, action), Turn("user", observation)]
        over = terminated or truncated
