"""Skips what needs OGBench, or OpenGL, where there is none."""

from __future__ import annotations

import pytest

from qsft.errors import ConfigError

collect_ignore_glob: list[str] = []

try:
    import ogbench  # noqa: F401
except ImportError:
    collect_ignore_glob.append("test_*.py")


@pytest.fixture(scope="session")
def opengl() -> None:
    """The test is skipped where no picture can be drawn."""
    from qsft.envs.manipulation.pictures import Pictures

    try:
        Pictures(16)
    except ConfigError as error:
        pytest.skip(str(error))
