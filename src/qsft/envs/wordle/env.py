"""Wordle as an environment: text in, text out."""

from __future__ import annotations

import math
import os
import string
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import gymnasium
import numpy as np

from qsft.envs.base import BlockPlayer, Environment
from qsft.envs.wordle.rules import NO_FEEDBACK, SOLVED, TRIES, lexicon
from qsft.envs.wordle.texts import (
    FIRST_OBSERVATION,
    INVALID,
    OBSERVATIONS,
    action_text,
    observation_text,
    parse_action,
    symbols,
)
from qsft.envs.wordle.words import load_words
from qsft.errors import ConfigError

if TYPE_CHECKING:
    from rich.text import Text

    from qsft.data.trajectory import Trajectory
    from qsft.policies.base import Policy

_PRINTED = string.ascii_lowercase + string.digits + " \n"


class Wordle(Environment):
    """Find a five-letter word in six guesses; rules and texts of LMRL-Gym (its README tells the differences).

    A guess is its letters with blanks between them and a newline, ``"c r a n e\\n"``. A guess that does not solve costs
    1; the one that does costs nothing. So a game won at guess k returns ``1 - k`` and a lost one ``-6``. Anything that
    is no word of the vocabulary is an invalid guess: it is answered by a bare newline, earns ``invalid_reward`` and
    costs a try. The sixth guess ends the game (``terminated``) in any case.

    ``info`` holds ``n_left``, how many words of the vocabulary fit all that was said so far; at the end also
    ``success`` and ``secret``. ``reset(options={"secret": "crane"})`` pins the secret.

    Args:
        words: the vocabulary, guesses and secrets alike: ``None`` for our own list of 452, a path of a file with one
            word a line, or a list.
        invalid_reward: reward of an invalid guess, finite and at most 0; LMRL-Gym has -1 and, as an option, -10.
        feedback: ``"lax"``, the rule of LMRL-Gym, or ``"strict"``, that of the real game; see
            :func:`qsft.envs.wordle.rules.feedback_table`.
        observation: ``"colours"``, the text of LMRL-Gym, ``"g y b b b\\n"``; or ``"tiles"``, ours, in which one token
            holds place, letter and colour, ``"1cg 2ry 3ab 4nb 5eb\\n"``.

    Raises:
        ConfigError: a value that is not allowed.
    """

    name: str = "wordle"
    policies: ClassVar[dict[str, str]] = {
        "random": "qsft.envs.wordle.policies:RandomPolicy",
        "random-consistent": "qsft.envs.wordle.policies:RandomConsistentPolicy",
        "mixture": "qsft.envs.wordle.policies:MixturePolicy",
        "greedy-information": "qsft.envs.wordle.policies:GreedyInformationPolicy",
    }
    reset_options = ("secret",)

    def __init__(
        self,
        words: str | os.PathLike[str] | Sequence[str] | None = None,
        invalid_reward: float = -1.0,
        feedback: str = "lax",
        observation: str = "colours",
    ) -> None:
        if isinstance(invalid_reward, bool) or not isinstance(invalid_reward, int | float):
            raise ConfigError(f"wordle: invalid_reward={invalid_reward!r} is not a number")
        if not math.isfinite(invalid_reward) or invalid_reward > 0:
            raise ConfigError(
                f"wordle: invalid_reward={invalid_reward} must be finite and at most 0, such as -1 or -10"
            )
        if observation not in OBSERVATIONS:
            raise ConfigError(f"wordle: observation={observation!r} is unknown; use one of {', '.join(OBSERVATIONS)}")
        self.lexicon = lexicon(load_words(words), feedback)
        self.invalid_reward = float(invalid_reward)
        self.observation = observation
        self.max_turns = TRIES
        self.return_range = (TRIES * min(-1.0, self.invalid_reward), 0.0)
        # What is said in earnest; step() also takes any other text, as an invalid guess.
        self.action_space = gymnasium.spaces.Text(max_length=10, charset=string.ascii_lowercase + " \n")
        self.observation_space = gymnasium.spaces.Text(max_length=20, charset=_PRINTED + "W:")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Starts a game. ``options={"secret": word}`` pins the secret, else it is drawn uniformly.

        Raises:
            ConfigError: unknown option, or a secret that is not in the vocabulary.
        """
        secret = self.pins(options).get("secret")
        if secret is not None and not (isinstance(secret, str) and secret in self.lexicon.index):
            raise ConfigError(f"wordle: secret {secret!r:.60} is not in the vocabulary of {len(self.lexicon)} words")
        super().reset(seed=seed, options=options)
        words = len(self.lexicon)
        self._secret = int(self.np_random.integers(words)) if secret is None else self.lexicon.index[secret]
        self._consistent = self.lexicon.everything(1)
        self._tries = 0
        return FIRST_OBSERVATION, {"n_left": words}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """One guess.

        Raises:
            EpisodeError: the game is over or was never started, or ``action`` is not a ``str``.
        """
        self.check_step(action)
        self._tries += 1
        word = parse_action(action)
        guess = self.lexicon.index.get(word)
        if guess is None:
            code, observation, reward = NO_FEEDBACK, INVALID, self.invalid_reward
        else:
            code = int(self.lexicon.table[guess, self._secret])
            observation, reward = observation_text(word, code, self.observation), -1.0
            self.lexicon.narrow(self._consistent, np.array([guess]), np.array([code], np.uint8))
        info: dict[str, Any] = {"n_left": int(self._consistent.sum())}
        if code == SOLVED:
            reward = 0.0
        if code == SOLVED or self._tries == TRIES:
            self._playing = False
            info["success"] = code == SOLVED
            info["secret"] = self.lexicon.words[self._secret]
        return observation, reward, not self._playing, False, info

    def symbols(self, whole_actions: bool = False) -> list[str]:
        """``"Wordle:"``, a newline, the letters (or the words, as ``"c r a n e"``), with ``"tiles"`` also the tiles."""
        if whole_actions:
            return [*symbols(self.observation, letters=False), *(" ".join(word) for word in self.lexicon.words)]
        return symbols(self.observation)

    def typed_action(self, text: str) -> str:
        return action_text(text.replace(" ", ""))

    def picture(self, history: Trajectory) -> Text:
        from qsft.envs.wordle.render import tiles_text

        return tiles_text(history)

    def block_player(self, policy: Policy) -> BlockPlayer | None:
        from qsft.envs.wordle.collect import WordlePlayer
        from qsft.envs.wordle.policies import WordlePolicy

        return WordlePlayer(self, policy) if isinstance(policy, WordlePolicy) else None
