"""Trainers of the two stages and the runs made of them."""

from qsft.training.config import QSFTConfig, SFTConfig
from qsft.training.critic_config import ArcherConfig, AWRConfig, CQLConfig, ILQLConfig, MonteCarloConfig
from qsft.training.critic_trainers import ArcherTrainer, AWRTrainer, CQLTrainer, ILQLTrainer, MonteCarloTrainer
from qsft.training.runs import METHODS, RunSettings, train
from qsft.training.trainer import QSFTTrainer, SFTTrainer

__all__ = [
    "METHODS",
    "AWRConfig",
    "AWRTrainer",
    "ArcherConfig",
    "ArcherTrainer",
    "CQLConfig",
    "CQLTrainer",
    "ILQLConfig",
    "ILQLTrainer",
    "MonteCarloConfig",
    "MonteCarloTrainer",
    "QSFTConfig",
    "QSFTTrainer",
    "RunSettings",
    "SFTConfig",
    "SFTTrainer",
    "train",
]
