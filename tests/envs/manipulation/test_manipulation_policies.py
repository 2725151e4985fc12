"""The scripted players, and the data they make."""

from __future__ import annotations

import json

import numpy as np
import pytest

from qsft.data.rows import json_line, trajectory_from_row, trajectory_to_row
from qsft.data.trajectory import Trajectory, Turn
from qsft.envs.collect import collect
from qsft.envs.manipulation import ClosedDrawer, Pick
from qsft.envs.manipulation.collect import ManipulationPlayer
from qsft.envs.manipulation.policies import NoisyPolicy, OraclePolicy
from qsft.envs.manipulation.tasks import STAGE_STEPS, TASKS
from qsft.envs.registry import environment_class, make, make_policy
from qsft.envs.rollout import rollout
from qsft.errors import ConfigError, DataError

HANDLED = {"effector": [0.42, 0.05, 0.22, 0.1], "drawer": 0.0}
ON_TABLE, INSIDE = [0.36, 0.08, 0.02, 0.2], [0.33, -0.39, 0.066, 0.1]
PINS = {
    "pick": {"cube": ON_TABLE, "locked": False},
    "place": {"cube": ON_TABLE, "locked": False, "target": [0.40, -0.02]},
    "drawer": {"cube": INSIDE, "locked": False},
    "closed-drawer": {"cube": INSIDE, "locked": False},
    "blocked-drawer": {"cube": INSIDE, "locked": True},
}


@pytest.mark.parametrize("name", TASKS)
def test_the_oracle_solves_every_task(name: str) -> None:
    pins = {**HANDLED, **PINS[name]}
    (game,) = rollout([make(name)], make_policy(name, "oracle"), [0], [pins])
    assert game.metadata == {**pins, "success": True}
    assert (game.ended, game.total_return, game.rewards[-1]) == ("terminated", 1.0, 1.0)


@pytest.mark.parametrize("bins", [32, 64])
def test_the_oracle_copes_with_coarse_bins(bins: int) -> None:
    env = Pick(action_bins=bins, state_bins=bins)
    (game,) = rollout([env], OraclePolicy(env), [0], [{**HANDLED, **PINS["pick"]}])
    assert game.metadata["success"]


def test_grasping_alone_does_not_open_a_drawer() -> None:
    name = "closed-drawer"
    pins = {**HANDLED, **PINS[name]}
    (game,) = rollout([make(name)], make_policy(name, "grasp-only"), [0], [pins])
    assert (game.ended, game.total_return) == ("truncated", 0.0)
    assert "grasp-only" not in environment_class("pick").policies


def test_each_episode_has_its_own_player_whoever_else_is_asked() -> None:
    env = Pick()
    policy = NoisyPolicy(env)
    policy.seed(5)
    histories = []
    for seed in range(4):
        first, _ = env.reset(seed=seed)
        stays = [Turn("assistant", "a128 a128 a128 a128 a0\n", 0.0), Turn("user", first)]
        histories += [Trajectory([Turn("user", first)]), Trajectory([Turn("user", first), *stays])]
    actions = policy.act(histories)
    assert [policy.act([history])[0] for history in reversed(histories)] == actions[::-1]
    assert len(set(actions)) == 8, "noise differs from step to step and from episode to episode"
    policy.seed(6)
    assert not set(policy.act(histories)) & set(actions)


def test_the_noisy_player_succeeds_now_and_then() -> None:
    """In 30% to 45% of its episodes; the interval of 48 is some 14 points wide."""
    games = list(collect("pick", "noisy", 48, seed=3))
    assert 0.2 < np.mean([game.metadata["success"] for game in games]) < 0.6


def test_data_of_a_task_with_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ManipulationPlayer, "size", 4)
    env = ClosedDrawer()
    player = env.block_player(NoisyPolicy(env))
    assert isinstance(player, ManipulationPlayer)
    games = player.play(seed=3, block=0)
    assert [game.metadata["stage"] for game in games] == ["closed", "open"] * 2
    for game in games:
        few, many = STAGE_STEPS[game.metadata["stage"]]
        assert len(game.rewards) <= many
        assert game.metadata["success"] or len(game.rewards) >= few
        assert game.ended == ("terminated" if game.metadata["success"] else "truncated")
        assert len(game.metadata["states"]) == len(game.rewards) + 1
        assert (game.metadata["drawer"] > 0.13) == (game.metadata["stage"] == "open")
        row = json.loads(json_line(trajectory_to_row(game)))
        assert trajectory_from_row(row) == game
    assert [game.total_return for game in games if game.metadata["stage"] == "closed"] == [0.0, 0.0]
    assert player.play(seed=3, block=0) == games
    assert player.play(seed=3, block=1)[0].turns != games[0].turns


def test_stored_states_are_those_of_the_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ManipulationPlayer, "size", 1)
    env = Pick()
    (game,) = ManipulationPlayer(env, OraclePolicy(env)).play(seed=1, block=0)
    assert game.metadata["success"]
    observed = [turn.text for turn in game.turns if turn.role == "user"]
    for text, state in zip(observed, game.metadata["states"], strict=True):
        env.scene.restore(np.array(state))
        seen = env.state_tokens.parse(text)
        assert seen is not None
        assert (np.abs(seen - env.scene.features()) <= env.state_tokens.width / 2 + 1e-3)[:8].all()
    pins = {name: game.metadata[name] for name in env.reset_options}
    (again,) = rollout([env], OraclePolicy(env), [0], [pins])
    assert again.turns == game.turns, "turn by turn it is the same"


def test_a_policy_for_other_observations() -> None:
    with pytest.raises(ConfigError, match="observation='tokens'"):
        OraclePolicy(Pick(observation="state"))
    with pytest.raises(DataError, match=r"pick: 's1 s2\\n' is no observation"):
        OraclePolicy(Pick()).act([Trajectory([Turn("user", "s1 s2\n")])])
