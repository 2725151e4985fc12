"""Scripted players of the maze, against returns that are worked out exactly."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from qsft.data.trajectory import Trajectory, Turn
from qsft.envs import make, make_policy, scripted_policies
from qsft.envs.collect import Collection, collect
from qsft.envs.maze import MazeGame
from qsft.envs.maze.collect import MazePlayer
from qsft.envs.maze.mazes import MOVES, maze_named
from qsft.envs.maze.policies import OptimalPolicy, PopulationPolicy
from qsft.envs.rollout import derive_seed, rollout
from qsft.errors import ConfigError, DataError
from qsft.policies.base import Policy
from tests.pages import python_blocks

POLICIES = ["optimal", "population", "random"]
MAZE = maze_named("double-t")
STARTS = [cell for cell in MAZE.cells if cell != MAZE.goal]
ALL = {"maze": ["double-t", "umaze"], "observation": "partial"}


def test_names_and_contract() -> None:
    assert scripted_policies("maze") == POLICIES
    for name in POLICIES:
        policy = make_policy("maze", name)
        assert isinstance(policy, Policy)
        assert policy.name == name
        assert policy.act([]) == []


def returns_from_everywhere(name: str, options: dict) -> list[float]:
    env = make("maze", **options)
    policy = make_policy("maze", name, env_options=options)
    pins = [{"maze": m.name, "position": list(c)} for m in env.mazes for c in m.cells if c != m.goal]
    games = rollout([make("maze", **options) for _ in pins], policy, [0] * len(pins), pins)
    return [game.total_return for game in games]


def test_the_shortest_way_is_the_published_maximum() -> None:
    returns = returns_from_everywhere("optimal", {})
    assert returns == [1.0 - MAZE.distances[cell] for cell in STARTS]
    assert np.mean(returns) == pytest.approx(-6.84)


def best_of_all(walls_only: bool) -> float:
    """The highest mean return in the U maze, by trying every plan of up to 9 moves that looks at what is seen."""
    maze = maze_named("umaze")
    deltas = {"right": (0, 1), "left": (0, -1), "up": (-1, 0), "down": (1, 0)}

    def seen(cell: tuple[int, int]) -> object:
        return frozenset(m for m, (r, c) in deltas.items() if (cell[0] + r, cell[1] + c) not in maze.cells)

    def split(cells: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
        groups: dict[object, list] = {}
        for cell in cells:
            groups.setdefault(seen(cell) if walls_only else cell, []).append(cell)
        return list(groups.values())

    def best(cells: list[tuple[int, int]], left: int) -> float:
        if not cells:
            return 0.0
        if left == 0:
            return -100.0 * len(cells)
        found = -math.inf
        for r, c in deltas.values():
            there = [(a + r, b + c) if (a + r, b + c) in maze.cells else (a, b) for a, b in cells]
            there = [cell for cell in there if cell != maze.goal]
            found = max(found, -len(there) + sum(best(group, left - 1) for group in split(there)))
        return found

    starts = [cell for cell in maze.cells if cell != maze.goal]
    return sum(best(group, 7) for group in split(starts)) / len(starts)


@pytest.mark.parametrize("observation", ["full", "partial"])
def test_optimal_is_optimal(observation: str) -> None:
    mean = np.mean(returns_from_everywhere("optimal", {"maze": "umaze", "observation": observation}))
    assert mean == pytest.approx(best_of_all(observation == "partial"))


def test_optimal_under_partial_observation() -> None:
    """It loses little by not knowing where it is, and value iteration's own value is what play returns."""
    for options, mean in (({"observation": "partial"}, -7.24), (ALL, None)):
        returns = returns_from_everywhere("optimal", options)
        assert min(returns) > -30
        if mean is not None:
            assert np.mean(returns) == pytest.approx(mean)


def exact_mean(part: int | None) -> float:
    """Expected return of one kind of player (``None``: any move anywhere) over all starts, by dynamic programming."""
    farthest = max(MAZE.distances.values())
    value = dict.fromkeys(STARTS, -1.0)  # the 101st action
    for _ in range(100):
        new = {}
        for cell in STARTS:
            chances = dict.fromkeys(MOVES, 0.25)
            if part is not None:
                known = math.ceil(MAZE.distances[cell] / farthest * 3) == part + 1
                sure, change = (0.7, -1) if known else (0.1375, 1)
                wanted = [m for m in MOVES if MAZE.distances[MAZE.after(cell, m)] - MAZE.distances[cell] == change]
                if wanted:
                    chances = {m: (1 - sure) / 4 + sure / len(wanted) * (m in wanted) for m in MOVES}
            new[cell] = 0.0
            for move, chance in chances.items():
                there = MAZE.after(cell, move)
                new[cell] += 0.0 if there == MAZE.goal else chance * (value[there] - 1)
        value = new
    return float(np.mean(list(value.values())))


def test_population_has_the_published_data_mean() -> None:
    means = [exact_mean(part) for part in range(3)]
    assert abs(np.mean(means) + 83) < 0.2
    assert max(means) < -65, "nobody finds the way alone"
    for name, mean in (("population", float(np.mean(means))), ("random", exact_mean(None))):
        returns = np.array([game.total_return for game in collect("maze", name, 1024, seed=2)])
        assert abs(returns.mean() - mean) < 4 * returns.std() / math.sqrt(len(returns)) < 5


def test_the_population_knows_every_step() -> None:
    policy = make_policy("maze", "population")
    assert isinstance(policy, PopulationPolicy)
    for cell in STARTS:
        shortest = [m for m in MOVES if MAZE.distances[MAZE.after(cell, m)] < MAZE.distances[cell]]
        sure = [part for part in range(3) if policy._chance(part, (MAZE, cell), shortest[0]) > 0.7]
        assert len(sure) == 1
        for part, total in product(range(3), [1.0]):
            assert sum(policy._chance(part, (MAZE, cell), move) for move in MOVES) == pytest.approx(total)


def test_belief_in_the_kinds_is_bayes_rule() -> None:
    policy = make_policy("maze", "population")
    assert isinstance(policy, PopulationPolicy)
    env = make("maze")
    memory = policy.remember(env.reset(options={"position": [1, 1]})[0])
    cell, likely = (1, 1), np.ones(3)
    for move in ("right", "left", "right", "right", "down", "down"):
        likely *= [policy._chance(part, (MAZE, cell), move) for part in range(3)]
        cell = MAZE.after(cell, move)
        memory = policy.learn(memory, f"move {move}\n", env.step(f"move {move}\n")[0])
    np.testing.assert_allclose(memory[1], likely / likely.sum())
    assert likely.argmax() == 2, "who walks straight out of the far part knows it"
    assert policy.learn(memory, "jump\n", "whatever") == memory


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("options", [{}, ALL], ids=["full", "partial"])
def test_fast_episodes_are_the_episodes_turn_by_turn(name: str, options: dict) -> None:
    player = MazePlayer(MazeGame(**options), make_policy("maze", name, env_options=options))
    player.environments, player.size = player.environments[:6], 6
    fast = player.play(3, 2)
    slow = make_policy("maze", name, env_options=options)
    slow.seed(derive_seed(3, 1, 2))
    seeds = [derive_seed(3, 0, number) for number in range(12, 18)]
    assert rollout([make("maze", **options) for _ in seeds], slow, seeds) == fast


def test_policies_for_other_mazes_are_refused() -> None:
    policy = make_policy("maze", "optimal", env_options={"maze": "umaze"})
    assert isinstance(policy, OptimalPolicy)
    with pytest.raises(ConfigError, match="made for other mazes or observations"):
        Collection("maze", policy)
    with pytest.raises(DataError, match="no place looks like"):
        policy.act([Trajectory([Turn("user", make("maze").reset(seed=0)[0])])])
    said = [Turn("user", make("maze", maze="umaze").reset(options={"position": [3, 1]})[0])]
    said += [Turn("assistant", "move up\n"), said[0]]
    with pytest.raises(DataError, match="no place looks like"):
        policy.act([Trajectory(said)])


def test_seed_restarts_a_policy() -> None:
    history = Trajectory([Turn("user", make("maze").reset(seed=0)[0])])
    for name in ("random", "population"):
        policy = make_policy("maze", name, seed=4)
        first = policy.act([history] * 20)
        assert policy.act([history] * 20) != first
        policy.seed(4)
        assert policy.act([history] * 20) == first


def test_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[3] / "docs/environments/maze.md"
    namespace: dict = {}
    for block in python_blocks(page):
        exec(block, namespace)
    assert len((tmp_path / "games.jsonl").read_text().splitlines()) == 100
