"""Selection and test on different episodes."""

import numpy as np
import pytest

from qsft.errors import ConfigError
from qsft.evaluation import evaluation_row, rollout, select_and_evaluate
from tests.evaluation.toys import Counting, Guess


def players():
    made = []

    def make(setting):
        made.append(Counting(setting["first"]))
        return made[-1]

    return made, make


def test_the_best_setting_is_judged_once_on_other_episodes():
    made, make = players()
    settings = [{"first": 4}, {"first": 2}, {"first": 6}]
    found = select_and_evaluate(make, settings, Guess, 60, 1, 80, 2, progress=False)
    assert [p.seeds for p in made] == [[1], [1], [1], [2]]
    expected = [evaluation_row(list(rollout(Counting(s["first"]), Guess, 60, 1)), seconds=0) for s in settings]
    for grid_row, setting, evaluation in zip(found.rows, settings, expected, strict=True):
        assert grid_row.setting == setting
        assert {**grid_row.evaluation, "seconds": 0} == evaluation
    means = [e["return_mean"] for e in expected]
    assert [r.chosen for r in found.rows] == [m == max(means) for m in means]
    assert found.setting == settings[int(np.argmax(means))]
    best = list(rollout(Counting(found.setting["first"]), Guess, 80, 2))
    assert found.trajectories == best
    assert {**found.test, "seconds": 0} == evaluation_row(best, seconds=0)
    assert (found.test["seed"], found.test["episodes"]) == (2, 80)
    chosen = next(r for r in found.rows if r.chosen)
    assert chosen.to_json() == {"setting": found.setting, "chosen": True, "evaluation": chosen.evaluation}


def test_of_equals_the_first_wins():
    _, make = players()
    settings = [{"first": 1, "name": "a"}, {"first": 1, "name": "b"}]
    assert select_and_evaluate(make, settings, Guess, 10, 0, 10, 1, progress=False).setting["name"] == "a"


def test_selection_and_test_must_differ_and_the_grid_must_be_one():
    made, make = players()
    for settings, seed, message in [
        ([{"first": 1}], 5, "seed 5 for both"),
        ([], 6, "no settings"),
        ([{"first": 1}, {"first": 2}, {"first": 1}], 6, "setting 3 .* twice"),
    ]:
        with pytest.raises(ConfigError, match=message):
            select_and_evaluate(make, settings, Guess, 10, 5, 10, seed, progress=False)
    assert made == []
