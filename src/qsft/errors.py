"""The errors that a user can cause and can mend."""


class QSFTError(Exception):
    """Base of every error that qsft raises on purpose.

    The message is one line: what is wrong, where (file, row, field), and what to do about it. The command line prints
    the message without a traceback and exits with status 2.
    """


def wrong_argument(error: Exception) -> str:
    """What a call's ``TypeError`` or ``ValueError`` says, in one line, without the constructor's name before it."""
    return str(error).partition("\n")[0].split("__init__() ")[-1]


class DataError(QSFTError, ValueError):
    """A trajectory, a file of trajectories, or its tokenisation is unusable."""


class ConfigError(QSFTError, ValueError):
    """Settings that contradict each other, the data, or the model."""


class CheckpointError(QSFTError, ValueError):
    """A saved model or run cannot be read, or does not fit what it is used for."""
