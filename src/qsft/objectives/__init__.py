"""The methods' objectives as pure tensor functions: shapes in, scalar out."""

from qsft.objectives.archer import turn_advantages, turn_bounds
from qsft.objectives.bellman import (
    Targets,
    bellman_targets,
    clipped_targets,
    exponential_weights,
    has_target,
    max_value,
    monte_carlo_targets,
    q_ratios,
    scaled_value,
    soft_value,
    stake,
)
from qsft.objectives.chunked import cross_entropy, linear_cross_entropy, linear_log_probabilities
from qsft.objectives.cql import max_min_q
from qsft.objectives.forms import TargetDistribution, anchored, balanced, dummy, supervised, uniform
from qsft.objectives.ilql import expectile_regression, q_regression, token_q
from qsft.objectives.q_transformer import q_transformer_loss, q_transformer_targets
from qsft.objectives.weighting import advantage_weights

__all__ = [
    "TargetDistribution",
    "Targets",
    "advantage_weights",
    "anchored",
    "balanced",
    "bellman_targets",
    "clipped_targets",
    "cross_entropy",
    "dummy",
    "expectile_regression",
    "exponential_weights",
    "has_target",
    "linear_cross_entropy",
    "linear_log_probabilities",
    "max_min_q",
    "max_value",
    "monte_carlo_targets",
    "q_ratios",
    "q_regression",
    "q_transformer_loss",
    "q_transformer_targets",
    "scaled_value",
    "soft_value",
    "stake",
    "supervised",
    "token_q",
    "turn_advantages",
    "turn_bounds",
    "uniform",
]
