"""The errors that a user can cause and can mend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class QSFTError(Exception):
    """Base of every error that qsft raises on purpose.

    The message is one line: what is wrong, where (file, row, field), and what to do about it. The command line prints
    the message without a traceback and exits with status 2.
    """


def wrong_argument(error: Exception) -> str:
    """What a call's ``TypeError`` or ``ValueError`` says, in one line, without the constructor's name before it."""
    return str(error).partition("\n")[0].split("__init__() ")[-1]


def raised_in_worker(error: Exception) -> str:
    """What a worker process of a DataLoader raised, in one line: torch makes its traceback part of the message."""
    return str(error).rstrip().rpartition("\n")[2].removeprefix(f"{type(error).__module__}.{type(error).__name__}: ")


class DataError(QSFTError, ValueError):
    """A trajectory, a file of trajectories, or its tokenisation is unusable."""


class ConfigError(QSFTError, ValueError):
    """Settings that contradict each other, the data, or the model."""


class CheckpointError(QSFTError, ValueError):
    """A saved model or run cannot be read, or does not fit what it is used for."""


class UnansweredTurns(QSFTError, RuntimeError):
    """A policy has an action for some of the episodes that it was asked about, and none for the others.

    Args:
        actions: in order, ``None`` where there is none.
        errors: why, by the place of the ``None``.
    """

    def __init__(self, actions: Sequence[str | None], errors: Mapping[int, Exception]) -> None:
        super().__init__(str(next(iter(errors.values()))))
        self.actions, self.errors = list(actions), dict(errors)
