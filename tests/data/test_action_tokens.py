"""Vectors as tokens: against the definition of bins, and for any bounds."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qsft.data.action_tokens import VectorTokens
from qsft.errors import ConfigError, DataError

finite = st.floats(-1e6, 1e6)


@st.composite
def tokens_and_vectors(draw: st.DrawFn) -> tuple[VectorTokens, np.ndarray]:
    """Bins with any bounds (at least a thousandth apart), and vectors within them, at the bounds too."""
    dimensions = draw(st.integers(1, 5))
    low = np.array(draw(st.lists(finite, min_size=dimensions, max_size=dimensions)))
    extent = draw(st.lists(st.floats(1e-3, 1e6), min_size=dimensions, max_size=dimensions))
    bins = draw(st.lists(st.integers(1, 300), min_size=dimensions, max_size=dimensions))
    shares = draw(st.lists(st.lists(st.floats(0, 1), min_size=dimensions, max_size=dimensions), min_size=1, max_size=4))
    tokens = VectorTokens(low, low + extent, bins)
    return tokens, np.clip(tokens.low + np.array(shares) * (tokens.high - tokens.low), tokens.low, tokens.high)


@given(tokens_and_vectors())
def test_there_and_back_is_within_half_a_bin(case: tuple[VectorTokens, np.ndarray]) -> None:
    tokens, vectors = case
    indices = tokens.encode(vectors)
    assert indices.shape == vectors.shape
    assert ((indices >= 0) & (indices < tokens.bins)).all()
    slack = 4 * np.spacing(np.maximum(np.abs(tokens.low), np.abs(tokens.high)))
    assert (np.abs(tokens.decode(indices) - vectors) <= tokens.width / 2 + slack).all()


@given(tokens_and_vectors())
def test_middles_and_texts_are_fixed_points(case: tuple[VectorTokens, np.ndarray]) -> None:
    tokens, vectors = case
    indices = tokens.encode(vectors)
    middles = tokens.decode(indices)
    assert (tokens.encode(middles) == indices).all()
    for vector, middle in zip(vectors, middles, strict=True):
        np.testing.assert_array_equal(tokens.parse(tokens.text(vector)), middle)


@given(tokens_and_vectors(), st.data())
def test_clipping_is_the_nearest_bin(case: tuple[VectorTokens, np.ndarray], data: st.DataObject) -> None:
    tokens, vectors = case
    outside = vectors[0] + data.draw(st.sampled_from((-1.0, 1.0))) * 3 * (tokens.high - tokens.low)
    expected = [
        np.argmin(np.abs(low + (np.arange(n) + 0.5) * width - value))
        for low, n, width, value in zip(tokens.low, tokens.bins, tokens.width, outside, strict=True)
    ]
    assert tokens.encode(outside, clip=True).tolist() == expected
    with pytest.raises(DataError, match="out of bounds"):
        tokens.encode(outside)


def test_bins_by_hand() -> None:
    tokens = VectorTokens([-1, 0], [1, 10], 4)
    assert tokens.encode([[-1, 0], [-0.5, 2.5], [0.49, 7.4], [1, 10]]).tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]
    assert tokens.decode([0, 3]).tolist() == [-0.75, 8.75]
    assert tokens.text([1, 0]) == "a3 a0"
    assert tokens.symbols == ["a0", "a1", "a2", "a3"]
    assert VectorTokens([0.0], [1.0]).bins.tolist() == [256], "RT-1's number"


def test_a_discrete_dimension_stands_for_its_values() -> None:
    tokens = VectorTokens([-1, -2], [1, 2], [256, 2])
    assert tokens.decode(tokens.encode([[0.3, -1], [0.3, 1]]))[:, 1].tolist() == [-1, 1]
    assert len(tokens.symbols) == 256


def test_percentile_bounds() -> None:
    values = np.linspace(0.0, 100.0, 1001)
    data = np.stack([values, -values], 1)
    data[0, 0] = 1e9
    tokens = VectorTokens.from_percentiles(data, bins=16)
    np.testing.assert_allclose(tokens.low, [1.1, -99.0], atol=0.02)
    np.testing.assert_allclose(tokens.high, [99.1, -1.0], atol=0.02)
    assert tokens.encode(data[0], clip=True).tolist() == [15, 15]


@pytest.mark.parametrize("text", ["", "a0", "a0 a0 a0", "a0 a4", "a0 b0", "a0 a-1", "a0 a01", "0 0"])
def test_other_texts_are_no_vectors(text: str) -> None:
    assert VectorTokens([0, 0], [1, 1], 4).parse(text) is None


def test_a_symbol_of_a_longer_dimension_is_no_bin_of_a_shorter_one() -> None:
    tokens = VectorTokens([0, 0], [1, 1], [4, 2])
    assert tokens.parse("a3 a2") is None
    assert tokens.parse(" a3  a1\n") is not None


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda t: t.encode([0.5, np.nan]), DataError, "nan in dimension 1; every value must be finite"),
        (lambda t: t.encode([np.inf, 0.5], clip=True), DataError, "inf in dimension 0"),
        (lambda t: t.encode([0.5, 1.5]), DataError, "1.5 in dimension 1 is out of bounds 0 to 1"),
        (lambda t: t.encode([0.5]), DataError, "shape (1,); its last axis must have 2 dimensions"),
        (lambda t: t.encode(0.5), DataError, "shape ()"),
        (lambda t: t.text([[0.5, 0.5]]), DataError, "give one vector"),
        (lambda t: t.decode([0, 4]), DataError, "4 in dimension 1, which has bins 0 to 3"),
        (lambda t: t.decode([-1, 0]), DataError, "-1 in dimension 0"),
        (lambda t: t.decode([0, 1, 2]), DataError, "shape (3,)"),
        (lambda t: t.decode([0.0, 1.0]), DataError, "give integers"),
        (lambda t: VectorTokens([0], [1, 2]), ConfigError, "one value a dimension"),
        (lambda t: VectorTokens([], []), ConfigError, "one value a dimension"),
        (lambda t: VectorTokens([1], [1]), ConfigError, "bounds: 1.0 to 1.0 in dimension 0"),
        (lambda t: VectorTokens([0, np.nan], [1, 1]), ConfigError, "in dimension 1"),
        (lambda t: VectorTokens([1e9], [1e9 + 1e-6], 256), ConfigError, "bounds"),
        (lambda t: t.encode("ab"), DataError, "vector: 'ab' is no vector of numbers"),
        (lambda t: t.encode([10**400, 0]), DataError, "is no vector of numbers"),
        (lambda t: VectorTokens(["a"], [1]), ConfigError, "are no numbers"),
        (lambda t: VectorTokens([0], [1], 4.0), ConfigError, "bins: 4.0; give whole numbers"),
        (lambda t: VectorTokens([0], [1], 10**9), ConfigError, "give whole numbers of at most 1,000,000"),
        (lambda t: VectorTokens([0, 0], [1, 1], [4]), ConfigError, "bins: 1 numbers for 2 dimensions"),
        (lambda t: VectorTokens([0, 0], [1, 1], 0), ConfigError, "bins: 0 in dimension 0; give at least 1"),
        (lambda t: VectorTokens.from_percentiles([[0.0, 1.0], [1.0, 1.0]]), ConfigError, "dimension 1 is 1.0 at both"),
        (lambda t: VectorTokens.from_percentiles([[0.0]], lower=99, upper=1), ConfigError, "percentiles: 99 and 1"),
        (lambda t: VectorTokens.from_percentiles([0.0, 1.0]), DataError, "one row a vector"),
        (lambda t: VectorTokens.from_percentiles([[np.nan]]), DataError, "finite"),
    ],
)  # fmt: skip
def test_errors(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)) as caught:
        call(VectorTokens([0, 0], [1, 1], 4))
    assert "\n" not in str(caught.value)
