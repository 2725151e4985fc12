"""Vectors (actions, states) as tokens: uniform bins, one token a dimension.

256 bins between bounds are RT-1's choice (Brohan et al. 2022); bounds at the 1st and 99th percentile of the data are
OpenVLA's (Kim et al. 2024).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsft.errors import ConfigError, DataError

#: more symbols are no vocabulary
_MOST_BINS = 1_000_000


class VectorTokens:
    """Uniform bins for each of D dimensions, and their names as symbols of a text.

    Bin i of a dimension is ``[low + i w, low + (i + 1) w)`` with ``w = (high - low) / bins``; the last one includes
    ``high``. A bin stands for its middle, so that tokenising and back moves a value by half a bin at most.

    For a dimension that is really discrete give as many bins as it has values, and bounds half a step beyond the first
    and the last value: the middles are then the values. A gripper that opens (-1) or closes (1): 2 bins from -2 to 2.

    Args:
        low, high: [D], bounds of each dimension.
        bins: of every dimension, or [D] of each; 256 as in RT-1.
        prefix: of the symbols, such as ``"a"`` for ``a0``, ``a1``, ...

    Attributes:
        low, high, width: [D] float64; the width is that of a bin.
        bins: [D] int64.

    Raises:
        ConfigError: bounds that are not finite or not in order, fewer than one bin, or lengths that differ.
    """

    def __init__(self, low: ArrayLike, high: ArrayLike, bins: int | Sequence[int] = 256, prefix: str = "a") -> None:
        try:
            self.low, self.high = np.array(low, np.float64), np.array(high, np.float64)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"bounds: {low!r:.40} and {high!r:.40} are no numbers ({error}); give [D] each") from None
        if self.low.ndim != 1 or self.low.shape != self.high.shape or not self.low.size:
            raise ConfigError(
                f"bounds: low has shape {self.low.shape} and high {self.high.shape}; give one value a dimension"
            )
        if np.array(bins).dtype.kind not in "iu" or np.max(bins) > _MOST_BINS:
            raise ConfigError(f"bins: {bins!r:.60}; give whole numbers of at most {_MOST_BINS:,}")
        if np.ndim(bins) and np.shape(bins) != self.low.shape:
            raise ConfigError(f"bins: {np.size(bins)} numbers for {len(self.low)} dimensions; give one for each")
        self.bins = np.broadcast_to(np.array(bins, np.int64), self.low.shape).copy()
        self.width = (self.high - self.low) / self.bins.clip(1)
        for dimension, (lower, upper, width) in enumerate(zip(self.low, self.high, self.width, strict=True)):
            # A width that vanishes beside the bounds would put neighbouring bins' edges on the same number.
            if not (math.isfinite(width) and width > 4 * np.spacing(max(abs(lower), abs(upper)))):
                raise ConfigError(
                    f"bounds: {lower} to {upper} in dimension {dimension}; give finite ones, the lower one first"
                )
            if self.bins[dimension] < 1:
                raise ConfigError(f"bins: {self.bins[dimension]} in dimension {dimension}; give at least 1")
        self.prefix = prefix
        self._texts = [f"{prefix}{index}" for index in range(int(self.bins.max()))]
        self._indices = {text: index for index, text in enumerate(self._texts)}

    @classmethod
    def from_percentiles(
        cls,
        vectors: ArrayLike,
        bins: int | Sequence[int] = 256,
        lower: float = 1.0,
        upper: float = 99.0,
        prefix: str = "a",
    ) -> VectorTokens:
        """Bounds at percentiles of data, so that a few outliers do not widen all bins; encode with ``clip=True``.

        Args:
            vectors: [N, D], finite.
            lower, upper: percentiles of each dimension; OpenVLA's by default.

        Raises:
            ConfigError: percentiles out of order, or a dimension in which both are the same value.
            DataError: vectors of another shape, or not finite.
        """
        if not 0 <= lower < upper <= 100:
            raise ConfigError(f"percentiles: {lower} and {upper}; give two of 0 to 100, the lower one first")
        data = np.array(vectors, np.float64)
        if data.ndim != 2 or not len(data):
            raise DataError(f"vectors: shape {data.shape}; give one row a vector, at least one")
        _check_finite(data)
        low, high = np.percentile(data, [lower, upper], axis=0)
        for dimension in np.flatnonzero(low == high):
            raise ConfigError(
                f"percentiles: dimension {dimension} is {low[dimension]} at both; give its bounds yourself"
            )
        return cls(low, high, bins, prefix)

    @property
    def dimensions(self) -> int:
        """D."""
        return len(self.low)

    @property
    def symbols(self) -> list[str]:
        """All symbols, ``[max(bins)]``. Dimensions share them: which one is meant follows from its place."""
        return list(self._texts)

    def encode(self, vectors: ArrayLike, clip: bool = False) -> NDArray[np.int64]:
        """Bins of vectors.

        Args:
            vectors: [..., D].
            clip: put what is out of bounds into the first or last bin, instead of refusing it.

        Returns:
            [..., D], each in ``0 <= index < bins``.

        Raises:
            DataError: another number of dimensions, a value that is not finite, or (unless ``clip``) out of bounds.
        """
        try:
            values = np.asarray(vectors, np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(f"vector: {vectors!r:.60} is no vector of numbers ({error}); mend it") from None
        if not values.ndim or values.shape[-1] != self.dimensions:
            raise DataError(f"vector: shape {values.shape}; its last axis must have {self.dimensions} dimensions")
        _check_finite(values)
        outside = (values < self.low) | (values > self.high)
        if outside.any() and not clip:
            dimension = int(np.argwhere(outside)[0][-1])
            value = values[outside][0]
            raise DataError(
                f"vector: {value:g} in dimension {dimension} is out of bounds "
                f"{self.low[dimension]:g} to {self.high[dimension]:g}; mend it, or encode with clip=True"
            )
        indices = np.floor((values - self.low) / self.width)
        return np.clip(indices, 0, self.bins - 1).astype(np.int64)

    def decode(self, indices: ArrayLike) -> NDArray[np.float64]:
        """The middles of bins.

        Args:
            indices: [..., D] integers.

        Raises:
            DataError: another number of dimensions, or an index that is no bin.
        """
        numbers = np.asarray(indices)
        if not numbers.ndim or numbers.shape[-1] != self.dimensions:
            raise DataError(f"tokens: shape {numbers.shape}; the last axis must have {self.dimensions} dimensions")
        if not np.issubdtype(numbers.dtype, np.integer):
            raise DataError(f"tokens: of type {numbers.dtype}; give integers")
        wrong = (numbers < 0) | (numbers >= self.bins)
        if wrong.any():
            dimension = int(np.argwhere(wrong)[0][-1])
            raise DataError(
                f"tokens: {numbers[wrong][0]} in dimension {dimension}, which has bins 0 to {self.bins[dimension] - 1}"
            )
        return self.low + (numbers + 0.5) * self.width

    def text(self, vector: ArrayLike, clip: bool = False) -> str:
        """One vector as symbols with single blanks between them: ``"a17 a250"``. Raises as :meth:`encode` does."""
        indices = self.encode(vector, clip)
        if indices.ndim != 1:
            raise DataError(f"vector: shape {indices.shape}; give one vector of {self.dimensions} dimensions")
        return " ".join(self._texts[index] for index in indices)

    def parse(self, text: str) -> NDArray[np.float64] | None:
        """The vector (middles of bins) that a text of symbols means; ``None`` for any other text."""
        indices = [self._indices.get(word, -1) for word in text.split()]
        if len(indices) != self.dimensions or any(not 0 <= i < n for i, n in zip(indices, self.bins, strict=True)):
            return None
        return self.decode(np.array(indices))


def _check_finite(values: np.ndarray) -> None:
    wrong = ~np.isfinite(values)
    if wrong.any():
        dimension = int(np.argwhere(wrong)[0][-1])
        raise DataError(f"vector: {values[wrong][0]} in dimension {dimension}; every value must be finite")
