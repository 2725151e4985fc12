"""Twenty Questions with the rules and texts of LMRL-Gym. See README.md beside this file."""

from qsft.envs.twenty_questions.env import TwentyQuestions, objects_world
from qsft.envs.twenty_questions.oracles import Endpoint, ModelOracle, OracleError, TableOracle
from qsft.envs.twenty_questions.rules import clean_question, names_item, tokens
from qsft.envs.twenty_questions.world import World

__all__ = [
    "Endpoint",
    "ModelOracle",
    "OracleError",
    "TableOracle",
    "TwentyQuestions",
    "World",
    "clean_question",
    "names_item",
    "objects_world",
    "tokens",
]
