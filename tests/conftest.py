"""Fixtures that several rooms' tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from qsft import endpoint
from tests.fake_endpoint import Server, serve


@pytest.fixture
def server() -> Iterator[Server]:
    """A served model that answers what it is told to."""
    with serve() as made:
        yield made


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between attempts, which take no time here."""
    slept: list[float] = []
    monkeypatch.setattr(endpoint.time, "sleep", slept.append)
    return slept
