"""The maze: texts, moves, rewards, limits, bad input."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from qsft.envs import EpisodeError, make, symbols
from qsft.envs.collect import collect
from qsft.envs.maze.mazes import maze_named
from qsft.errors import ConfigError
from qsft.models.scratch import word_level_tokenizer

# Drawn again for the tests, as rows of free columns, so that a slip in the module's drawing shows.
FREE = {
    "double-t": {(1, c) for c in (1, 2, 3, 4, 5, 7, 8, 9, 10, 11)}
    | {(r, c) for r in (2, 3, 4) for c in (3, 9)}
    | {(5, c) for c in range(3, 10)}
    | {(r, 6) for r in (6, 7, 8)},
    "umaze": {(1, 1), (1, 2), (1, 3), (2, 1), (2, 3), (3, 1), (3, 3)},
}
GOAL = {"double-t": (8, 6), "umaze": (3, 3)}
STEP = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}


def spaced(number: int) -> str:
    return " ".join(str(number))


def naive_text(maze: str, cell: tuple[int, int], observation: str) -> str:
    sides = [("to your right", 0, 1), ("to your left", 0, -1), ("above you", -1, 0), ("below you", 1, 0)]
    walls = [side for side, down, right in sides if (cell[0] + down, cell[1] + right) not in FREE[maze]]
    if len(walls) == 1:
        said = f"There is a wall {walls[0]}."
    else:
        said = f"There are walls {', '.join(walls)}." if walls else "There are no walls near you."
    if observation == "full":
        (a, b), (c, d) = GOAL[maze], cell
        goal = f"The goal is at position {spaced(a)}, {spaced(b)}. "
        said = goal + f"Your current position is at position {spaced(c)}, {spaced(d)}. " + said
    return said + "\n"


@pytest.mark.parametrize("name", FREE)
def test_the_drawings(name: str) -> None:
    maze = maze_named(name)
    assert set(maze.cells) == FREE[name]
    assert maze.goal == GOAL[name]
    assert set(maze.distances) == FREE[name], "every cell can be reached"


def test_texts_of_the_original() -> None:
    env = make("maze")
    assert env.reset(options={"position": [1, 1]})[0] == (
        "The goal is at position 8, 6. Your current position is at position 1, 1. "
        "There are walls to your left, above you, below you.\n"
    )
    assert env.reset(options={"position": [1, 10]})[0] == (
        "The goal is at position 8, 6. Your current position is at position 1, 1 0. "
        "There are walls above you, below you.\n"
    )
    assert env.reset(options={"position": (5, 6)})[0].endswith("position 5, 6. There is a wall above you.\n")
    partial = make("maze", observation="partial")
    assert partial.reset(options={"position": [1, 1]})[0] == "There are walls to your left, above you, below you.\n"
    assert env.step("move up\n")[:4] == (env.reset(options={"position": [5, 6]})[0], -1.0, False, False)


@pytest.mark.parametrize("observation", ["full", "partial"])
@pytest.mark.parametrize("name", FREE)
def test_walks_against_a_naive_maze(name: str, observation: str) -> None:
    env = make("maze", maze=name, observation=observation)
    drawn = random.Random(3)
    for _ in range(60):
        cell = drawn.choice(sorted(FREE[name] - {GOAL[name]}))
        start = list(cell)
        text, info = env.reset(options={"position": start})
        assert (text, info) == (naive_text(name, cell, observation), {})
        for number in range(1, 102):
            move = drawn.choice([*STEP, "sideways"])
            step = env.step(f"move {move}\n")
            if number == 101:
                assert step == (
                    "Failure\n",
                    -1.0,
                    True,
                    False,
                    {"success": False, "maze": name, "position": start},
                )
                break
            down, right = STEP.get(move, (0, 0))
            there = cell[0] + down, cell[1] + right
            cell = there if there in FREE[name] else cell
            if cell == GOAL[name]:
                assert step == ("Success\n", 0.0, True, False, {"success": True, "maze": name, "position": start})
                break
            assert step == (naive_text(name, cell, observation), -1.0 if move in STEP else -4.0, False, False, {})


@pytest.mark.parametrize("action", ["", "\n", "up\n", "move\n", "move  up\n", "Move up\n", "move upp\n", "moveup"])
def test_what_is_no_move_stays_and_costs(action: str) -> None:
    env = make("maze", invalid_reward=-2)
    text, _ = env.reset(options={"position": [6, 6]})
    assert env.step(action) == (text, -2.0, False, False, {})
    assert env.step(" move down ")[1] == -1.0


def test_return_range_and_worst_returns() -> None:
    for options, action, worst in (({}, "jump", -401.0), ({"invalid_reward": 0}, "move up\n", -101.0)):
        env = make("maze", **options)
        env.reset(options={"position": [1, 1]})
        total, over = 0.0, False
        while not over:
            _, reward, over, _, _ = env.step(action)
            total += reward
        assert total == worst == env.return_range[0]
    assert env.max_turns == 101
    with pytest.raises(EpisodeError, match="reset"):
        env.step("move up\n")


def test_starts_are_uniform_over_free_cells() -> None:
    env = make("maze")
    seen = {env.reset(seed=seed)[0] for seed in range(400)}
    assert len(seen) == 25
    assert env.reset(seed=7)[0] == env.reset(seed=7)[0]


def test_several_mazes() -> None:
    env = make("maze", maze=["umaze", "double-t"])
    goals = {env.reset(seed=seed)[0].split(".")[0] for seed in range(30)}
    assert goals == {"The goal is at position 3, 3", "The goal is at position 8, 6"}
    assert env.reset(options={"maze": "umaze", "position": [3, 1]})[0].startswith("The goal is at position 3, 3")
    assert env.reset(options={"maze": "double-t"})[0].startswith("The goal is at position 8, 6")


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ({"maze": "labyrinth"}, None, "maze 'labyrinth' is unknown; use one of double-t, umaze"),
        ({"maze": []}, None, "list of mazes is empty"),
        ({"observation": "tiles"}, None, "use one of full, partial"),
        ({"invalid_reward": 1}, None, "must be finite and at most 0"),
        ({"invalid_reward": "low"}, None, "is not a number"),
        ({}, {"maze": "umaze"}, r"maze 'umaze' is none of this environment's \(double-t\)"),
        ({}, {"position": [8, 6]}, "is no start of 'double-t'"),
        ({}, {"position": [0, 0]}, "is no start"),
        ({}, {"position": [1]}, "is no start"),
        ({}, {"position": "1, 1"}, "is no start"),
        ({}, {"position": [[1], 1]}, "is no start"),
        ({}, {"position": [1.0, 1.0]}, "is no start"),
        ({}, {"maze": ["umaze"]}, r"maze \['umaze'\] is none of this environment's"),
        ({"maze": 5}, None, "environment 'maze' cannot be made with maze=5: 'int' object is not iterable"),
        ({}, {"goal": [1, 1]}, "unknown reset option 'goal'; known: maze, position"),
    ],
)
def test_bad_input(arguments: dict[str, Any], options: dict[str, Any] | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make("maze", **arguments).reset(options=options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("observation", ["full", "partial"])
def test_symbols_cover_all_episodes(observation: str) -> None:
    options = {"maze": ["double-t", "umaze"], "observation": observation}
    known = symbols("maze", **options)
    assert len(known) == len(set(known)) < 60
    used = set()
    for game in collect("maze", "random", 64, env_options=options):
        for turn in game.turns:
            pieces = re.findall(r"\n|[^ \n]+", turn.text)
            assert " ".join(pieces).replace(" \n", "\n") == turn.text
            used.update(pieces)
    assert used == set(known)
    whole = word_level_tokenizer(symbols("maze", whole_actions=True, **options))
    for game in collect("maze", "random", 8, env_options=options):
        for turn in game.turns:
            ids = whole(turn.text, add_special_tokens=False)["input_ids"]
            assert whole.decode(ids) == turn.text and whole.unk_token_id not in ids
            assert len(ids) == 2 or (observation == "full" and not turn.is_agent)


def test_typed_action() -> None:
    env = make("maze")
    assert env.typed_action("up") == env.typed_action("move up") == "move up\n"
