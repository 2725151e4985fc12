"""What vectors the symbols of a trajectory mean, as its metadata says it.

``{"vectors": {"action": {"names": ["x", "grip"], "discrete": [false, true], "low": [-1, -2], "high": [1, 2],
"bins": [256, 2], "prefix": "a"}, "observation": {...}}}``, and ``cameras`` where there are pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from qsft.data.action_tokens import VectorTokens
from qsft.errors import DataError


def describe(tokens: VectorTokens | None, names: Iterable[str], discrete: Iterable[bool]) -> dict[str, Any]:
    """The bins of actions or observations as JSON can hold them, for metadata.

    Args:
        tokens: ``None`` for an observation without dimensions (pictures alone).
        names: [D], of the dimensions.
        discrete: [D], whether the middles of its bins are all values that a dimension has.
    """
    described: dict[str, Any] = {"names": list(names)}
    if tokens is None:
        return described
    low, high, bins = tokens.low.tolist(), tokens.high.tolist(), tokens.bins.tolist()
    described["discrete"] = [bool(flag) for flag in discrete]
    return {**described, "low": low, "high": high, "bins": bins, "prefix": tokens.prefix}


def vector_tokens(metadata: Mapping[str, Any], kind: str, where: str = "trajectory") -> VectorTokens | None:
    """The bins that the metadata of a trajectory describes in ``vectors``, or ``None`` where there are no dimensions.

    Args:
        metadata: with ``{"vectors": {"action": ..., "observation": ...}}``, each as :func:`describe` makes it.
        kind: ``"action"`` or ``"observation"``.
        where: how errors name the trajectory.

    Raises:
        DataError: there is no such field, or it is not what it should be.
    """
    try:
        described = metadata["vectors"][kind]
        if not described["names"]:
            return None
        return VectorTokens(**{name: described[name] for name in ("low", "high", "bins", "prefix")})
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{where}: field metadata.vectors: {error!r:.80}; only trajectories of `qsft convert`, and those collected "
            "from robot tasks, know what vectors their symbols mean"
        ) from None


def symbols(metadata: Mapping[str, Any]) -> list[str]:
    """The symbols that a tokenizer of converted trajectories needs: observations', actions', and a newline."""
    both = [vector_tokens(metadata, kind) for kind in ("observation", "action")]
    return ["\n", *(symbol for tokens in both if tokens is not None for symbol in tokens.symbols)]
