"""Q-SFT's objectives as pure tensor functions: shapes in, scalar out."""

from qsft.objectives.bellman import (
    Targets,
    bellman_targets,
    max_value,
    monte_carlo_targets,
    q_ratios,
    soft_value,
)
from qsft.objectives.chunked import cross_entropy, linear_cross_entropy, linear_log_probabilities
from qsft.objectives.forms import TargetDistribution, anchored, dummy, supervised, uniform

__all__ = [
    "TargetDistribution",
    "Targets",
    "anchored",
    "bellman_targets",
    "cross_entropy",
    "dummy",
    "linear_cross_entropy",
    "linear_log_probabilities",
    "max_value",
    "monte_carlo_targets",
    "q_ratios",
    "soft_value",
    "supervised",
    "uniform",
]
