"""Returns-to-go and the return range."""

from __future__ import annotations

import datasets
import numpy as np
import pytest
import torch

from qsft.data import ReturnRange, returns_to_go
from qsft.errors import ConfigError, DataError


def row(*turns, terminated=True, **more):
    """Turns as ``(tokens, reward)``, each after one token of the environment."""
    mask, ends, rewards = [], [], []
    for length, reward in turns:
        mask += [0] + [1] * length
        ends += [0] * length + [1]
        rewards.append(float(reward))
    ids = list(range(len(mask)))
    return {
        "input_ids": ids,
        "agent_mask": mask,
        "turn_end": ends,
        "turn_rewards": rewards,
        "terminated": terminated,
        **more,
    }


ROWS = [row((3, -1), (2, -1), (1, 0)), row((2, 4)), row((1, 1), (4, -8), terminated=False)]


def as_dataset(rows):
    return datasets.Dataset.from_list([{**row, "episode": row.get("episode", i)} for i, row in enumerate(rows)])


def test_returns_to_go_by_hand():
    assert returns_to_go([1, 2, 4]).tolist() == [7, 6, 4]
    assert returns_to_go([1, 2, 4], gamma=0.5).tolist() == [3, 4, 4]
    # 1 after one more token; 2 after two more, which is three after the first turn's first token.
    assert returns_to_go([1, 2], 0.5, "token", [2, 3]).tolist() == [0.5 + 2 * 0.5**4, 2 * 0.5**2]
    assert returns_to_go([]).tolist() == []


@pytest.mark.parametrize("make", [list, as_dataset, iter])
@pytest.mark.parametrize(
    ("gamma", "per", "low", "high"),
    [
        (1.0, "turn", -8, 4),
        (0.5, "turn", -8, 4),
        (0.5, "token", -8, 4),
        (0.0, "token", -8, 4),
    ],
)
def test_range_from_data(make, gamma, per, low, high):
    assert ReturnRange.from_data(make(ROWS), gamma, per) == ReturnRange(low, high)


def test_sums_count_and_so_does_every_token():
    assert ReturnRange.from_data([ROWS[0]]) == ReturnRange(-2, 0)
    assert ReturnRange.from_data([row((1, 1), (1, 1))]) == ReturnRange(1, 2)
    assert ReturnRange.from_data([row((3, 8))], 0.5, "token") == ReturnRange(2, 8)
    with pytest.raises(
        DataError, match="every return-to-go in the data is 8, so nothing tells good turns from bad ones; a"
    ):
        ReturnRange.from_data([row((3, 8)), row((1, 8))])


def test_the_end_is_not_a_state():
    """A terminated episode's value is 0 after its end, but no target ever looks there."""
    assert ReturnRange.from_data([row((1, 10)), row((1, 11))]) == ReturnRange(10, 11)


def test_no_data():
    with pytest.raises(DataError, match="the data holds no turn of the agent; give some episodes"):
        ReturnRange.from_data([])


def test_scale_and_unscale():
    range = ReturnRange(-6, 2)
    assert range.scale(-6) == 0
    assert range.scale(2) == 1
    assert range.unscale(0.5) == -2
    values = torch.tensor([-6.0, 0.0, 5.0])
    assert torch.equal(range.unscale(range.scale(values)), values)
    assert range.scale(np.array([0.0])).tolist() == [0.75]


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 1), (float("nan"), 1), (0, float("inf"))])
def test_ranges_that_are_none(low, high):
    with pytest.raises(ConfigError, match="give two finite numbers, the lower one first"):
        ReturnRange(low, high)


@pytest.mark.parametrize("make", [list, as_dataset])
def test_check(make):
    ReturnRange(-8, 4).check(make(ROWS))
    ReturnRange(-8 + 1e-7, 4).check(make(ROWS))
    with pytest.raises(DataError) as caught:
        ReturnRange(-7.5, 4).check(make(ROWS), source="games.jsonl")
    assert str(caught.value) == (
        "games.jsonl: row 3: field rewards: the return-to-go at agent turn 2 is -8, outside of the return range "
        "[-7.5, 4]; widen the range or mend the rewards"
    )
    with pytest.raises(DataError, match=r"data: row 2: .* at agent turn 1 is 4, outside"):
        ReturnRange(-7.5, 3).check(make(ROWS))
    with pytest.raises(DataError, match=r"data: row 2: .* at agent turn 1 is 2, outside"):
        ReturnRange(-8, 3.99).check(make([ROWS[2], row((2, 3.99))]), 0.5, "turn") or ReturnRange(2.5, 9).check(
            make([row((1, 3)), row((2, 4))]), 0.5, "token"
        )


def test_check_looks_where_a_shuffled_dataset_looks():
    data = as_dataset([*ROWS, row((1, 100))]).select([3, 0, 1])
    with pytest.raises(DataError, match=r"data: row 4: .* agent turn 1 is 100"):
        ReturnRange(-8, 4).check(data)
    assert ReturnRange.from_data(data.select([1])) == ReturnRange(-2, 0)


def test_more_rows_than_a_batch():
    rows = [row((1, 0), (1, -(i % 7))) for i in range(2_500)] + [row((1, 3), (2, 9))]
    assert ReturnRange.from_data(as_dataset(rows)) == ReturnRange(-6, 12)
    with pytest.raises(DataError, match=r"data: row 2501: .* agent turn 1 is 12,"):
        ReturnRange(-6, 11).check(as_dataset(rows))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (([1.0], 1.5), "gamma: 1.5; give a number from 0 to 1"),
        (([1.0], 0.9, "epoch"), "gamma_per: 'epoch'; use turn or token"),
        (([1.0], 0.9, "token"), "gamma_per token: needs turn_lengths"),
    ],
)
def test_discounts_that_are_refused(arguments, says):
    with pytest.raises(ConfigError, match=says):
        returns_to_go(*arguments)
