"""How sure a number is: 95% confidence intervals, differences, and the normalised score.

Everything here is a pure function of plain numbers. An interval that the data cannot bound (one episode) reaches from
minus infinity to plus infinity instead of pretending to be a point.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from qsft.errors import ConfigError, DataError

#: Every interval of the library covers with this probability.
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and the ends of its 95% confidence interval, from ``n`` observations."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def half_width(self) -> float:
        """Half the length of the interval (an interval need not be symmetric about the mean)."""
        return (self.high - self.low) / 2


@dataclass(frozen=True, slots=True)
class Scale:
    """Anchors of the normalised score, in units of return: worst possible, mean of the data, best known."""

    low: float
    data_mean: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.data_mean < self.high:
            raise ConfigError(
                f"scale {self.low} / {self.data_mean} / {self.high}: "
                "the anchors must rise from the minimum over the data's mean to the maximum"
            )


#: Anchors of LMRL-Gym (Abdulhai et al. 2023), the scale that its normalised scores use.
LMRL_GYM_SCALES = {
    "wordle": Scale(-6.0, -4.12, -1.94),
    "chess": Scale(-401.0, 0.21, 1.0),
    "endgames": Scale(-1.0, 0.586, 1.0),
    "twenty-questions": Scale(-20.0, -17.3, -12.6),
    "maze": Scale(-101.0, -83.0, -6.84),
}
#: The same, and the games for which there are none: worst return, mean of the policy ``population`` and of the scripted
#: ceiling, as the READMEs of these environments measure them.
GAME_SCALES = {
    **LMRL_GYM_SCALES,
    "guess-my-city": Scale(-20.0, -17.24, -4.02),
    "text-nav": Scale(0.0, 0.08, 1.0),
}


def normalised_score(value: float, scale: Scale) -> float:
    """Score on which the worst is 0, the data's mean 50 and the best 100; linear between, and beyond the ends."""
    if value <= scale.data_mean:
        return 50 * (value - scale.low) / (scale.data_mean - scale.low)
    return 50 + 50 * (value - scale.data_mean) / (scale.high - scale.data_mean)


def student_t_quantile(probability: float, df: float) -> float:
    """Quantile of Student's t distribution with ``df`` > 0 degrees of freedom (fractions allowed).

    Inverts the distribution function by bisection. Accurate to about 1e-10 for the probabilities of intervals.
    """
    if not 0 < probability < 1 or not df > 0:
        raise ConfigError(f"t quantile of probability {probability} and {df} degrees of freedom does not exist")
    if probability < 0.5:
        return -student_t_quantile(1 - probability, df)
    if math.isinf(df):
        return NormalDist().inv_cdf(probability)
    low, high = 0.0, 1.0
    while _student_t_cdf(high, df) < probability:
        low, high = high, 2 * high
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return middle
        if _student_t_cdf(middle, df) < probability:
            low = middle
        else:
            high = middle


def _student_t_cdf(t: float, df: float) -> float:
    """P(T <= t) for t >= 0: one half of the incomplete beta function at df / (df + t^2) is the upper tail."""
    return 1 - 0.5 * _incomplete_beta(df / (df + t * t), df / 2, 0.5)


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """Regularised incomplete beta function I_x(a, b), by its continued fraction (modified Lentz)."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    # The fraction converges fast only left of the mean; the symmetry of the function covers the other side.
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(1 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    tiny = 1e-300
    numerator, denominator = 1.0, 1 - (a + b) * x / (a + 1)
    denominator = 1 / (denominator if abs(denominator) > tiny else tiny)
    fraction = denominator
    for m in range(1, 10_000):
        for coefficient in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            denominator = 1 + coefficient * denominator
            denominator = 1 / (denominator if abs(denominator) > tiny else tiny)
            numerator = 1 + coefficient / numerator
            numerator = numerator if abs(numerator) > tiny else tiny
            change = numerator * denominator
            fraction *= change
        if abs(change - 1) < 1e-15:
            break
    return math.exp(log_front) * fraction / a


@lru_cache(maxsize=1024)
def _two_sided(df: float) -> float:
    return student_t_quantile((1 + CONFIDENCE) / 2, df)


def mean_interval(values: Sequence[float] | np.ndarray) -> Estimate:
    """Mean of independent values with Student's t interval: mean -+ t * s / sqrt(n), n - 1 degrees of freedom.

    Raises:
        DataError: no values, or one that is not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise DataError("mean of no values: at least one episode has to be played")
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array))[0]) + 1
        raise DataError(f"value {row} of {array.size} is {array[row - 1]}: returns must be finite numbers")
    mean = float(array.mean())
    if array.size == 1:
        return Estimate(mean, -math.inf, math.inf, 1)
    half = _two_sided(array.size - 1) * float(array.std(ddof=1)) / math.sqrt(array.size)
    return Estimate(mean, mean - half, mean + half, int(array.size))


def standard_error(estimate: Estimate) -> float:
    """The standard error behind a t interval of :func:`mean_interval` (infinite for one value)."""
    return math.inf if estimate.n < 2 else estimate.half_width / _two_sided(estimate.n - 1)


def success_interval(successes: int, episodes: int) -> Estimate:
    """Share of successes with Wilson's score interval, which stays in [0, 1] and has width at 0% and 100% too.

    Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference".

    Raises:
        DataError: no episodes, or successes outside [0, episodes].
    """
    if episodes < 1 or not 0 <= successes <= episodes:
        raise DataError(f"{successes} successes in {episodes} episodes: need 0 <= successes <= episodes, episodes >= 1")
    low, high = _wilson(successes / episodes, episodes, NormalDist().inv_cdf((1 + CONFIDENCE) / 2))
    return Estimate(successes / episodes, low, high, episodes)


def _wilson(share: float, n: float, z: float) -> tuple[float, float]:
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At 0% and 100% the end is exactly the share; rounding would leave it a hair inside.
    return (0.0 if share == 0 else centre - half), (1.0 if share == 1 else centre + half)


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """Mean of ``first - second`` over the same episodes, with Student's t interval on the differences.

    Luck that both methods share (an easy secret) cancels, so this sees differences that the two separate intervals
    hide. Give values of the same episode at the same place (see :func:`qsft.evaluation.paired_returns`).

    Raises:
        DataError: sequences of different length, empty, or with values that are not finite.
    """
    if len(first) != len(second):
        raise DataError(f"paired difference of {len(first)} and {len(second)} episodes: both must play the same ones")
    return mean_interval(np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64))


def difference(first: Estimate, second: Estimate) -> Estimate:
    """The mean of ``first`` less that of ``second``, both of :func:`mean_interval`, as if their episodes were independent.

    Where both played the same episodes that errs on the wide side; with the episodes themselves at hand
    :func:`paired_difference` sees more. ``n`` is the smaller of the two, whose degrees of freedom count (Student's t with
    fewer degrees than Welch's has).
    """
    n = min(first.n, second.n)
    mean = first.mean - second.mean
    if n < 2:
        return Estimate(mean, -math.inf, math.inf, n)
    half = _two_sided(n - 1) * math.hypot(standard_error(first), standard_error(second))
    return Estimate(mean, mean - half, mean + half, n)


def seeds_interval(per_seed: Sequence[Estimate], *, shared_episodes: bool = False) -> Estimate:
    """Mean return over training seeds, with an interval for seeds and episodes together.

    The model is m_s = mu + a_s + e_s for the mean m_s of seed s, where a_s (what training drew) has variance tau^2 and
    e_s (what the episodes drew) has the squared standard error se_s^2. The estimate of mu is the plain mean of the S
    values m_s. With B = sample variance of the m_s and W = mean of the se_s^2, its variance is estimated by

    * seeds that played **different episodes** (the default): E[B] = tau^2 + W, so B / S is right as it stands. By
      chance B can fall below W, which it must estimate from above; so max(B, W) / S, with S - 1 degrees of freedom.
    * seeds that **shared episodes**: luck of the episodes is common to all seeds, does not average out, and is not in
      B. B / S + W covers both, and errs on the wide side; its degrees of freedom are Satterthwaite's.

    One seed gives the interval over its episodes alone: it says nothing about another training run.

    Args:
        per_seed: one :func:`mean_interval` for each seed.
        shared_episodes: whether every seed was evaluated on the same episodes.

    Raises:
        DataError: no seeds.
    """
    if not per_seed:
        raise DataError("mean over no seeds: at least one finished run is needed")
    if len(per_seed) == 1:
        return per_seed[0]
    means = np.array([e.mean for e in per_seed])
    mean, episodes = float(means.mean()), sum(e.n for e in per_seed)
    within = float(np.mean([standard_error(e) ** 2 for e in per_seed]))
    if math.isinf(within):
        return Estimate(mean, -math.inf, math.inf, episodes)
    variance, df = _variance_over_seeds(float(means.var(ddof=1)), within, per_seed, shared_episodes)
    half = _two_sided(df) * math.sqrt(variance)
    return Estimate(mean, mean - half, mean + half, episodes)


def _variance_over_seeds(
    between: float, within: float, per_seed: Sequence[Estimate], shared_episodes: bool
) -> tuple[float, float]:
    """Variance of the mean over seeds and its degrees of freedom: the formulas of :func:`seeds_interval`."""
    seeds = len(per_seed)
    if not shared_episodes:
        return max(between, within) / seeds, seeds - 1
    variance = between / seeds + within
    episodes_df = min(e.n for e in per_seed) - 1
    uncertainty = (between / seeds) ** 2 / (seeds - 1) + (within**2 / episodes_df if episodes_df else 0.0)
    return variance, variance**2 / uncertainty if uncertainty > 0 else max(episodes_df, 1)


def seeds_success_interval(per_seed: Sequence[Estimate], *, shared_episodes: bool = False) -> Estimate:
    """Success rate over training seeds: Wilson's interval on an effective number of episodes.

    With p the mean of the S rates and n the episodes of a seed, the variance v of p is that of :func:`seeds_interval`
    with W = p (1 - p) / n. Wilson's interval is then taken for p (1 - p) / v episodes, with Student's t at the same
    degrees of freedom in place of the normal quantile. Where p is 0 or 1 all S n episodes count (n if shared).
    One seed: its own interval.

    Args:
        per_seed: one :func:`success_interval` for each seed.
        shared_episodes: whether every seed was evaluated on the same episodes.

    Raises:
        DataError: no seeds.
    """
    if not per_seed:
        raise DataError("success rate over no seeds: at least one finished run is needed")
    if len(per_seed) == 1:
        return per_seed[0]
    rates = np.array([e.mean for e in per_seed])
    rate, episodes = float(rates.mean()), sum(e.n for e in per_seed)
    spread = rate * (1 - rate)
    per_run = episodes / len(per_seed)
    variance, df = _variance_over_seeds(float(rates.var(ddof=1)), spread / per_run, per_seed, shared_episodes)
    effective = spread / variance if variance > 0 else (per_run if shared_episodes else episodes)
    low, high = _wilson(rate, effective, _two_sided(df))
    return Estimate(rate, low, high, episodes)


def separated(first: Estimate, second: Estimate) -> bool:
    """Whether the two intervals do not touch. Sufficient for a difference, not necessary: see paired_difference."""
    return first.low > second.high or second.low > first.high
