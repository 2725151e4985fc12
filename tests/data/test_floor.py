"""Shaping by the worst return still possible: what is above the floor, and nothing else, changes."""

import numpy as np
import pytest

from qsft.data.batch import TrajectoryCollator


def row(rewards: list[float], terminated: bool, trailing: bool) -> dict:
    mask, ends = [0], [0]
    for _ in rewards:
        mask += [1, 1, 0]
        ends += [0, 1, 0]
    if not trailing:
        mask, ends = mask[:-1], ends[:-1]
    return {
        "input_ids": list(range(1, len(mask) + 1)),
        "agent_mask": mask,
        "turn_end": ends,
        "turn_rewards": rewards,
        "terminated": terminated,
    }


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_returns_are_what_they_are_above_the_floor(gamma):
    rng = np.random.default_rng(0)
    for turns in (1, 3, 6):
        logged = row(rng.uniform(-1, 0, turns).tolist(), terminated=True, trailing=True)
        plain = TrajectoryCollator(0, gamma)([logged])["returns_to_go"][0].numpy()
        above = TrajectoryCollator(0, gamma, floor=(-6.0, 6))([logged])["returns_to_go"][0].numpy()
        floor = np.repeat(-6.0 * (1 - np.arange(turns) / 6), 2)
        np.testing.assert_allclose(above, plain - floor, atol=1e-5)


def test_a_lost_game_is_worth_nothing_at_any_turn_and_a_win_the_turns_it_saves():
    collator = TrajectoryCollator(0, floor=(-6.0, 6))
    lost = collator([row([-1.0] * 6, terminated=True, trailing=True)])
    assert lost["returns_to_go"].abs().max() < 1e-6
    won = collator([row([-1.0, -1.0, 0.0], terminated=True, trailing=True)])
    assert won["returns_to_go"][0].tolist() == [4.0] * 6
    assert won["rewards"][0].tolist() == [0.0, 0.0, 0.0, 0.0, 0.0, 4.0]


def test_a_truncated_episode_keeps_the_potential_of_the_state_it_ends_in():
    batch = TrajectoryCollator(0, floor=(-6.0, 6))([row([-1.0, -1.0], terminated=False, trailing=True)])
    # each turn costs 1 and the floor rises by 1: nothing happened yet
    assert batch["rewards"].abs().max() < 1e-6
