"""Scripted games of Wordle by the hundred thousand: the same games as turn by turn, without the turns."""

from __future__ import annotations

import numpy as np

from qsft.data.trajectory import AGENT_ROLE, Trajectory, Turn
from qsft.envs.rollout import derive_seed
from qsft.envs.wordle.batch import WordleBatch
from qsft.envs.wordle.env import Wordle
from qsft.envs.wordle.policies import WordlePolicy
from qsft.envs.wordle.rules import CODES, SOLVED
from qsft.envs.wordle.texts import FIRST_OBSERVATION, action_text, observation_text
from qsft.errors import ConfigError


class WordlePlayer:
    """The :class:`qsft.envs.base.BlockPlayer` of Wordle's scripted policies.

    A block's secrets are drawn from ``derive_seed(seed, 0, block)``; its policy starts from
    ``derive_seed(seed, 1, block)``.

    Raises:
        ConfigError: the policy was made for another vocabulary or feedback rule than the environment's.
    """

    size = 1024

    def __init__(self, environment: Wordle, policy: WordlePolicy) -> None:
        mine, its = policy.lexicon, environment.lexicon
        if mine.words != its.words or not np.array_equal(mine.table, its.table):
            # Guesses are word numbers here: they would silently mean other words.
            raise ConfigError("wordle: the policy has other words or another feedback rule than the environment")
        self.policy = policy
        self.lexicon = environment.lexicon
        self.observation = environment.observation
        # Turns are immutable: the games share them.
        self._first = Turn("user", FIRST_OBSERVATION)
        self._missed = [Turn(AGENT_ROLE, action_text(word), -1.0) for word in self.lexicon.words]
        self._solved = [Turn(AGENT_ROLE, action_text(word), 0.0) for word in self.lexicon.words]
        self._answers: dict[int, Turn] = {}

    def play(self, seed: int, block: int) -> list[Trajectory]:
        self.policy.seed(derive_seed(seed, 1, block))
        rng = np.random.default_rng(derive_seed(seed, 0, block))
        batch = WordleBatch(self.lexicon)
        batch.reset(rng.integers(len(self.lexicon), size=self.size))
        consistent = self.lexicon.everything(self.size)
        games: list[list[Turn]] = [[self._first] for _ in range(self.size)]
        playing = np.arange(self.size)
        while len(playing):
            chosen = self.policy.choose(consistent)
            guesses = np.zeros(self.size, np.intp)
            guesses[playing] = chosen
            codes, _, done = batch.step(guesses)
            told = codes[playing]
            for game, guess, code in zip(playing.tolist(), chosen.tolist(), told.tolist(), strict=True):
                turns = games[game]
                turns.append(self._solved[guess] if code == SOLVED else self._missed[guess])
                turns.append(self._answers.get(guess * CODES + code) or self._answer(guess, code))
            self.lexicon.narrow(consistent, chosen, told)
            goes_on = ~done[playing]
            playing, consistent = playing[goes_on], consistent[goes_on]
        return [
            Trajectory(turns, "terminated", {"secret": self.lexicon.words[secret], "success": turns[-2].reward == 0.0})
            for turns, secret in zip(games, batch.secrets.tolist(), strict=True)
        ]

    def _answer(self, guess: int, code: int) -> Turn:
        turn = Turn("user", observation_text(self.lexicon.words[guess], code, self.observation))
        self._answers[guess * CODES + code] = turn
        return turn
