"""Does the value mean what it says: predicted V against the return that followed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from qsft.errors import DataError
from qsft.evaluation.statistics import Estimate, mean_interval


@dataclass(frozen=True, slots=True)
class Calibration:
    """Pairs of a predicted value and the return-to-go that was realised from the same state.

    States of one episode are not independent. Give one state an episode (its first) for intervals that hold; with all
    states they are too narrow.

    Attributes:
        label: which value and which states, for example ``"V at the first letter"``.
        predicted, realised: in units of return, one entry per state, in the same order.
    """

    label: str
    predicted: Sequence[float]
    realised: Sequence[float]


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """States with similar predictions: ``low <= prediction <= high``, mean prediction, realised mean and interval."""

    low: float
    high: float
    predicted: float
    realised: Estimate

    @property
    def n(self) -> int:
        return self.realised.n


def calibration_bins(calibration: Calibration, bins: int = 10) -> list[CalibrationBin]:
    """Bins with about equally many states each, in rising order; equal predictions are never torn apart.

    Raises:
        DataError: no pairs, lists of different length, or a number that is not finite.
    """
    predicted, realised = _arrays(calibration)
    order = np.argsort(predicted, kind="stable")
    predicted, realised = predicted[order], realised[order]
    edges = [0]
    for k in range(1, bins + 1):
        end = round(k * len(predicted) / bins)
        while 0 < end < len(predicted) and predicted[end] == predicted[end - 1]:
            end += 1
        if end > edges[-1]:
            edges.append(end)
    return [
        CalibrationBin(
            low=float(predicted[start]),
            high=float(predicted[end - 1]),
            predicted=float(predicted[start:end].mean()),
            realised=mean_interval(realised[start:end]),
        )
        for start, end in pairwise(edges)
    ]


def calibration_bias(calibration: Calibration) -> Estimate:
    """Mean of predicted minus realised, with its interval. Above 0: the value is too hopeful."""
    predicted, realised = _arrays(calibration)
    return mean_interval(predicted - realised)


def _arrays(calibration: Calibration) -> tuple[np.ndarray, np.ndarray]:
    predicted = np.asarray(calibration.predicted, dtype=np.float64)
    realised = np.asarray(calibration.realised, dtype=np.float64)
    if predicted.shape != realised.shape or predicted.ndim != 1 or not predicted.size:
        raise DataError(
            f"calibration '{calibration.label}': {predicted.size} predictions and {realised.size} returns: "
            "give one pair per state, at least one"
        )
    if not (np.isfinite(predicted).all() and np.isfinite(realised).all()):
        raise DataError(f"calibration '{calibration.label}': a number is not finite: leave such states out")
    return predicted, realised
