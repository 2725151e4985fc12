"""Settings of the second stage of the value baselines: a critic with heads of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qsft.data.returns import ReturnRange
from qsft.errors import ConfigError
from qsft.training.config import SFTConfig, check_max_weight, one_of, positive, warn_of_grouping, within


@dataclass
class CriticConfig(SFTConfig):
    """What all critics have. Values are learnt as fractions of the return range, as in Q-SFT.

    Args:
        gamma: discount.
        gamma_per: ``"turn"`` or ``"token"``.
        return_low, return_high: bounds on every return-to-go in reward units; ``None`` reads them off the data.
    """

    gamma: float = 1.0
    gamma_per: Literal["turn", "token"] = "turn"
    return_low: float | None = None
    return_high: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        warn_of_grouping(self)
        one_of("gamma_per", self.gamma_per, ("turn", "token"))
        within("gamma", self.gamma, 0.0, 1.0)
        if self.return_low is not None and self.return_high is not None:
            ReturnRange(self.return_low, self.return_high)

    @property
    def return_range(self) -> tuple[float, float]:
        """The two bounds.

        Raises:
            ConfigError: one is not set.
        """
        if self.return_low is None or self.return_high is None:
            raise ConfigError("return_low, return_high: a critic needs the range of returns; set both.")
        return self.return_low, self.return_high


@dataclass
class MonteCarloConfig(CriticConfig):
    """``monte-carlo``: Q heads over the vocabulary, regressed to the return-to-go.

    Args:
        cql_scale: weight of the conservative term, the cross-entropy of the Q logits at the logged token.
        behaviour_scale: weight of the language model's own cross-entropy.
    """

    cql_scale: float = 0.01
    behaviour_scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _not_negative("cql_scale", self.cql_scale)
        _not_negative("behaviour_scale", self.behaviour_scale)


@dataclass
class CQLConfig(MonteCarloConfig):
    """``cql``: the same heads, with a maximum over the vocabulary for a backup.

    Args:
        target_rate: alpha of the target heads' moving average.
        trace: lambda of the targets, as in Q-SFT: 0, the original, bootstraps from the next token.
    """

    target_rate: float = 0.005
    trace: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        within("target_rate", self.target_rate, 0.0, 1.0)
        within("trace", self.trace, 0.0, 1.0)


@dataclass
class ILQLConfig(CQLConfig):
    """``ilql``: the same heads, with a V head for a backup: an expectile of Q over the actions of the data.

    Args:
        tau: the expectile.
    """

    tau: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        _inside("tau", self.tau)


@dataclass
class QTransformerConfig(CriticConfig):
    """``q-transformer``: the same heads as ``cql`` over the agent's tokens, with the terms of Q-Transformer.

    Args:
        conservatism: weight of the term that pulls the tokens that were not taken to the lowest return.
        lower_bound: no target is below the logged return-to-go.
        steps: tokens of the logged trajectory that a target looks ahead.
        behaviour_scale: weight of the language model's own cross-entropy, which plays no part in the greedy policy.
        target_rate: alpha of the target heads' moving average.
    """

    conservatism: float = 1.0
    lower_bound: bool = True
    steps: int = 1
    behaviour_scale: float = 0.0
    target_rate: float = 0.005

    def __post_init__(self) -> None:
        super().__post_init__()
        _not_negative("conservatism", self.conservatism)
        _not_negative("behaviour_scale", self.behaviour_scale)
        within("target_rate", self.target_rate, 0.0, 1.0)
        if self.steps < 1:
            raise ConfigError(f"steps: {self.steps} must be at least 1, the next token.")
        if self.gamma_per != "turn":
            raise ConfigError("gamma_per: q-transformer discounts whole actions; remove it or use 'turn'.")


@dataclass
class AWRConfig(CriticConfig):
    """``awr``: cross-entropy weighted with the advantage of the return-to-go over a V head.

    Args:
        temperature: of ``exp(A / temperature)``, in units of the scaled return.
        max_weight: where the weights are clipped.
    """

    temperature: float = 0.1
    max_weight: float = 20.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_weights(self.temperature, self.max_weight)


@dataclass
class ArcherConfig(CriticConfig):
    """``archer-offline``: a critic of whole turns, and token cross-entropy weighted with its advantages.

    Args:
        tau: expectile of the state's value.
        target_rate: alpha of the target heads' moving average.
        temperature: of ``exp(A / temperature)``, in units of the scaled return.
        max_weight: where the weights are clipped.
    """

    tau: float = 0.7
    target_rate: float = 0.005
    temperature: float = 0.1
    max_weight: float = 20.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _inside("tau", self.tau)
        within("target_rate", self.target_rate, 0.0, 1.0)
        _check_weights(self.temperature, self.max_weight)
        if self.gamma_per != "turn":
            raise ConfigError("gamma_per: archer-offline values whole turns; remove it or use 'turn'.")


def _not_negative(name: str, value: float) -> None:
    if value < 0:
        raise ConfigError(f"{name}: {value} must not be negative; 0 switches the term off.")


def _inside(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ConfigError(f"{name}: {value} is outside (0, 1); 0.7 is a good start.")


def _check_weights(temperature: float, max_weight: float) -> None:
    positive("temperature", temperature, 0.1)
    check_max_weight(max_weight)
