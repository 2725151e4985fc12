"""Intervals against closed forms, numerical integration, roots of the defining equations, and simulated coverage."""

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qsft.errors import ConfigError, DataError
from qsft.evaluation import (
    GAME_SCALES,
    LMRL_GYM_SCALES,
    Estimate,
    Scale,
    difference,
    mean_interval,
    normalised_score,
    paired_difference,
    seeds_interval,
    seeds_success_interval,
    separated,
    success_interval,
)
from qsft.evaluation.statistics import standard_error, student_t_quantile

Z = 1.959963984540054


@pytest.mark.parametrize("p", [0.6, 0.9, 0.975, 0.995, 0.9999])
def test_t_quantile_has_its_closed_forms(p):
    a = 4 * p * (1 - p)
    assert student_t_quantile(p, 1) == pytest.approx(math.tan(math.pi * (p - 0.5)), rel=1e-9)
    assert student_t_quantile(p, 2) == pytest.approx(2 * (p - 0.5) * math.sqrt(2 / a), rel=1e-9)
    q = math.cos(math.acos(math.sqrt(a)) / 3) / math.sqrt(a)
    assert student_t_quantile(p, 4) == pytest.approx(2 * math.sqrt(q - 1), rel=1e-9)
    assert student_t_quantile(1 - p, 4) == pytest.approx(-2 * math.sqrt(q - 1), rel=1e-9)
    assert student_t_quantile(p, 1e7) == pytest.approx(student_t_quantile(p, math.inf), rel=1e-5)


@pytest.mark.parametrize(
    ("df", "printed"), [(1, 12.706), (2, 4.303), (5, 2.571), (10, 2.228), (30, 2.042), (120, 1.980), (math.inf, 1.960)]
)
def test_t_quantile_is_that_of_printed_tables(df, printed):
    assert student_t_quantile(0.975, df) == pytest.approx(printed, abs=5e-4)


@pytest.mark.parametrize("df", [1.7, 3.3, 8.5, 61.25, 999])
@pytest.mark.parametrize("p", [0.8, 0.975, 0.999])
def test_t_density_integrates_to_the_probability_of_its_quantile(df, p):
    x = np.linspace(0, student_t_quantile(p, df), 20001)
    log_constant = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - 0.5 * math.log(df * math.pi)
    density = np.exp(log_constant - (df + 1) / 2 * np.log1p(x**2 / df))
    simpson = (x[1] - x[0]) / 3 * (density[0] + density[-1] + 4 * density[1:-1:2].sum() + 2 * density[2:-1:2].sum())
    assert 0.5 + simpson == pytest.approx(p, abs=1e-8)


def test_t_quantile_refuses_what_does_not_exist():
    for p, df in [(0, 3), (1, 3), (0.5, 0)]:
        with pytest.raises(ConfigError):
            student_t_quantile(p, df)


def test_mean_interval_by_hand():
    found = mean_interval([-1, -2, -3, -6])
    # s^2 = (4 + 1 + 0 + 9) / 3, t of 3 degrees of freedom = 3.1824
    half = 3.182446 * math.sqrt(14 / 3) / 2
    assert (found.mean, found.n) == (-3, 4)
    assert (found.low, found.high) == pytest.approx((-3 - half, -3 + half), abs=1e-5)
    assert standard_error(found) == pytest.approx(math.sqrt(14 / 3) / 2)


def test_one_value_bounds_nothing_and_none_or_nan_is_an_error():
    assert mean_interval([2.0]) == Estimate(2.0, -math.inf, math.inf, 1)
    with pytest.raises(DataError, match="no values"):
        mean_interval([])
    with pytest.raises(DataError, match="value 2 of 3 is nan"):
        mean_interval([1.0, math.nan, 2.0])


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_ends_solve_its_equation(counts):
    k, n = counts
    found = success_interval(k, n)
    share = k / n
    # (share - p)^2 = z^2 p (1 - p) / n
    roots = np.sort(np.roots([1 + Z**2 / n, -(2 * share + Z**2 / n), share**2]).real)
    assert (found.low, found.high) == pytest.approx(tuple(roots), abs=1e-6)
    assert 0 <= found.low <= share <= found.high <= 1
    assert found.low < found.high


def test_wilson_by_the_book_and_bad_counts():
    found = success_interval(9, 10)
    assert (found.low, found.high) == pytest.approx((0.59585, 0.98212), abs=1e-5)
    for k, n in [(1, 0), (-1, 3), (4, 3)]:
        with pytest.raises(DataError):
            success_interval(k, n)


def test_paired_difference_sees_what_separate_intervals_hide():
    rng = np.random.default_rng(0)
    luck = rng.normal(0, 2, 300)
    better, worse = luck + 0.2 + rng.normal(0, 0.3, 300), luck + rng.normal(0, 0.3, 300)
    assert not separated(mean_interval(better), mean_interval(worse))
    found = paired_difference(better, worse)
    d = better - worse
    half = student_t_quantile(0.975, 299) * d.std(ddof=1) / math.sqrt(300)
    assert (found.mean, found.low, found.high) == pytest.approx((d.mean(), d.mean() - half, d.mean() + half))
    assert found.low > 0
    mirrored = paired_difference(worse, better)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))
    with pytest.raises(DataError, match="3 and 2"):
        paired_difference([1, 2, 3], [1, 2])


def test_difference_of_independent_means():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 2, 400), rng.normal(0, 3, 200)
    found = difference(mean_interval(a), mean_interval(b))
    half = student_t_quantile(0.975, 199) * math.sqrt(a.var(ddof=1) / 400 + b.var(ddof=1) / 200)
    expected = (a.mean() - b.mean(), a.mean() - b.mean() - half, a.mean() - b.mean() + half)
    assert (found.mean, found.low, found.high) == pytest.approx(expected)
    assert found.n == 200
    assert standard_error(found) == pytest.approx(math.sqrt(a.var(ddof=1) / 400 + b.var(ddof=1) / 200))
    unbounded = difference(mean_interval(a), mean_interval([1.0]))
    assert (unbounded.low, unbounded.high) == (-math.inf, math.inf)


def test_separated_intervals_do_not_touch():
    low, high = Estimate(0, -1, 1, 9), Estimate(3, 1, 5, 9)
    assert not separated(low, high)
    assert not separated(high, low)
    assert separated(low, Estimate(3, 1.001, 5, 9))
    assert separated(Estimate(3, 1.001, 5, 9), low)
    assert not separated(low, Estimate(9, -math.inf, math.inf, 1))


def test_seeds_interval_by_hand():
    # Seeds far apart: their own spread counts, not the episodes'.
    seeds = [Estimate(m, m - 0.02, m + 0.02, 100) for m in (-2.0, -2.3, -2.6)]
    found = seeds_interval(seeds)
    half = 4.302653 * 0.3 / math.sqrt(3)
    assert (found.mean, found.low, found.high) == pytest.approx((-2.3, -2.3 - half, -2.3 + half), abs=1e-6)
    assert found.n == 300
    # Seeds that agree by chance: the episodes' noise is the floor.
    se = 0.1
    t99 = student_t_quantile(0.975, 99)
    same = [Estimate(-2.0, -2.0 - t99 * se, -2.0 + t99 * se, 100)] * 3
    assert seeds_interval(same).half_width == pytest.approx(4.302653 * se / math.sqrt(3), abs=1e-6)
    # Shared episodes: their luck does not average out over seeds. Seeds agree: the freedom is that of the episodes.
    assert seeds_interval(same, shared_episodes=True).half_width == pytest.approx(t99 * se)
    mixed = seeds_interval([Estimate(m, m - t99 * se, m + t99 * se, 100) for m in (0, 0.3, 0.6)], shared_episodes=True)
    a, b = 0.09 / 3, 0.01
    df = (a + b) ** 2 / (a**2 / 2 + b**2 / 99)
    assert mixed.half_width == pytest.approx(student_t_quantile(0.975, df) * math.sqrt(a + b))


def test_one_seed_keeps_its_interval_and_one_episode_bounds_nothing():
    one = mean_interval([1.0, 2.0, 4.0])
    assert seeds_interval([one]) is one
    assert seeds_interval([one, mean_interval([3.0])]).low == -math.inf
    for function in (seeds_interval, seeds_success_interval):
        with pytest.raises(DataError):
            function([])


@pytest.mark.parametrize("seed_spread", [0.0, 0.05, 0.3])
def test_seeds_interval_covers_when_every_seed_plays_other_episodes(seed_spread):
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(1500):
        means = rng.normal(0, seed_spread, 3)
        found = seeds_interval([mean_interval(rng.normal(m, 1, 50)) for m in means])
        hits += found.low <= 0 <= found.high
    assert hits / 1500 > 0.938


@pytest.mark.parametrize("seed_spread", [0.0, 0.1])
def test_seeds_interval_covers_when_seeds_share_episodes_only_if_told(seed_spread):
    rng = np.random.default_rng(2)
    hits, naive = 0, 0
    trials = 600
    for _ in range(trials):
        luck = rng.normal(0, 1, 50)
        seeds = [mean_interval(luck + rng.normal(0, seed_spread) + rng.normal(0, 0.1, 50)) for _ in range(8)]
        shared, unaware = seeds_interval(seeds, shared_episodes=True), seeds_interval(seeds)
        hits += shared.low <= 0 <= shared.high
        naive += unaware.low <= 0 <= unaware.high
    assert hits / trials > 0.93
    assert naive / trials < 0.75


def test_seeds_success_interval():
    # Seeds as alike as chance makes them: all episodes count, with t instead of z.
    rates = [success_interval(k, 100) for k in (80, 80, 80)]
    found = seeds_success_interval(rates)
    t, n, p = 4.302653, 300, 0.8
    roots = np.sort(np.roots([1 + t**2 / n, -(2 * p + t**2 / n), p**2]))
    assert (found.low, found.high) == pytest.approx(tuple(roots), abs=1e-6)
    # Seeds that differ more than chance: n shrinks by what they vary more than 0.5 * 0.5 / 100.
    spread = seeds_success_interval([success_interval(k, 100) for k in (30, 50, 70)])
    p, n = 0.5, 300 / (0.04 / 0.0025)
    roots = np.sort(np.roots([1 + t**2 / n, -(2 * p + t**2 / n), p**2]))
    assert (spread.low, spread.high) == pytest.approx(tuple(roots), abs=1e-6)
    perfect = seeds_success_interval([success_interval(50, 50)] * 3)
    assert perfect.high == 1 > perfect.low > 0.85
    shared = seeds_success_interval([success_interval(50, 50)] * 3, shared_episodes=True)
    assert shared.low == pytest.approx(50 / (50 + student_t_quantile(0.975, 49) ** 2))


def test_normalised_score_at_its_anchors_and_beyond():
    scale = LMRL_GYM_SCALES["wordle"]
    for value, score in [(-6, 0), (-4.12, 50), (-1.94, 100), (-5.06, 25), (-3.03, 75), (-7.88, -50), (0.24, 150)]:
        assert normalised_score(value, scale) == pytest.approx(score)
    with pytest.raises(ConfigError):
        Scale(0, 0, 1)


@pytest.mark.parametrize(("env", "ceiling"), [("guess-my-city", "greedy-information"), ("text-nav", "optimal")])
def test_anchors_of_our_own_are_what_the_environments_measured(env, ceiling):
    from importlib import resources

    text = resources.files("qsft.envs").joinpath(env.replace("-", "_"), "README.md").read_text(encoding="utf-8")
    measured = {
        policy: float(re.search(rf"^\| `{policy}`[^|]*\| (-?[\d.]+)", text, re.MULTILINE)[1])
        for policy in ("population", ceiling)
    }
    scale = GAME_SCALES[env]
    assert (scale.data_mean, scale.high) == (measured["population"], measured[ceiling])
    assert GAME_SCALES.keys() - LMRL_GYM_SCALES.keys() == {"guess-my-city", "text-nav"}


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30), st.floats(-1e3, 1e3))
@settings(max_examples=50)
def test_interval_moves_and_mirrors_with_the_data(values, shift):
    found = mean_interval(values)
    moved, mirrored = mean_interval([v + shift for v in values]), mean_interval([-v for v in values])
    assert (moved.low, moved.high) == pytest.approx((found.low + shift, found.high + shift), rel=1e-6, abs=1e-5)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low), rel=1e-9, abs=1e-6)
