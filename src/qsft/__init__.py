"""Q-SFT: offline reinforcement learning for language models, written as supervised fine-tuning."""

__version__ = "0.1.0"
