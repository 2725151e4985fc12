"""What a forward pass gives to an objective, and the models that Q-SFT is made of."""

from qsft.models.extraction import Extraction
from qsft.models.policy_model import QSFTPolicyConfig, QSFTPolicyModel, load_causal_lm
from qsft.models.robot_processor import RobotProcessor, robot_processor
from qsft.models.robot_transformer import RobotTransformerConfig, RobotTransformerForCausalLM
from qsft.models.states import check_head, output_head, pick_dummy_token, state_hidden
from qsft.models.support import SupportRule, compute_support, with_support
from qsft.models.target import AdapterTarget, TargetNetwork, make_target
from qsft.models.value_model import ValueModel, ValueModelConfig, load_value_model

__all__ = [
    "AdapterTarget",
    "Extraction",
    "QSFTPolicyConfig",
    "QSFTPolicyModel",
    "RobotProcessor",
    "RobotTransformerConfig",
    "RobotTransformerForCausalLM",
    "SupportRule",
    "TargetNetwork",
    "ValueModel",
    "ValueModelConfig",
    "check_head",
    "compute_support",
    "load_causal_lm",
    "load_value_model",
    "make_target",
    "output_head",
    "pick_dummy_token",
    "robot_processor",
    "state_hidden",
    "with_support",
]
