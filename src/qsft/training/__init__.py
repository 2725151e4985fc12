"""Trainers of the two stages and the runs made of them."""

from qsft.training.config import QSFTConfig, SFTConfig
from qsft.training.critic_config import (
    ArcherConfig,
    AWRConfig,
    CQLConfig,
    ILQLConfig,
    MonteCarloConfig,
    QTransformerConfig,
)
from qsft.training.critic_trainers import (
    ArcherTrainer,
    AWRTrainer,
    CQLTrainer,
    ILQLTrainer,
    MonteCarloTrainer,
    QTransformerTrainer,
)
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
    "QTransformerConfig",
    "QTransformerTrainer",
    "RunSettings",
    "SFTConfig",
    "SFTTrainer",
    "train",
]
