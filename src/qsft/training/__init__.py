"""Trainers of the two stages and the runs made of them."""

from qsft.training.config import QSFTConfig, SFTConfig
from qsft.training.runs import METHODS, RunSettings, train
from qsft.training.trainer import QSFTTrainer, SFTTrainer

__all__ = ["METHODS", "QSFTConfig", "QSFTTrainer", "RunSettings", "SFTConfig", "SFTTrainer", "train"]
