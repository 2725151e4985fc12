"""Q-SFT: offline reinforcement learning for language models, written as supervised fine-tuning.

The names below are imported when they are first used: ``import qsft`` costs nothing, and playing a game needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qsft.data import Trajectory, Turn, load_trajectories, write_trajectories
    from qsft.errors import QSFTError
    from qsft.models import Extraction
    from qsft.policies import load_policy
    from qsft.training import RunSettings, train

__version__ = "0.1.0"

_HOME = {
    "Extraction": "qsft.models",
    "QSFTError": "qsft.errors",
    "RunSettings": "qsft.training",
    "Trajectory": "qsft.data",
    "Turn": "qsft.data",
    "load_policy": "qsft.policies",
    "load_trajectories": "qsft.data",
    "train": "qsft.training",
    "write_trajectories": "qsft.data",
}

__all__ = [
    "Extraction",
    "QSFTError",
    "RunSettings",
    "Trajectory",
    "Turn",
    "__version__",
    "load_policy",
    "load_trajectories",
    "train",
    "write_trajectories",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value
