"""Scripted games of questions by the hundred thousand: the same games as turn by turn, without the turns."""

from __future__ import annotations

import numpy as np

from qsft.data.trajectory import AGENT_ROLE, Trajectory, Turn
from qsft.envs.rollout import derive_seed
from qsft.envs.twenty_questions.game import FIRST_OBSERVATION, TURNS, QuestionGame
from qsft.envs.twenty_questions.policies import QuestionPolicy, narrow
from qsft.errors import ConfigError


class QuestionPlayer:
    """The :class:`qsft.envs.base.BlockPlayer` of the scripted policies, where the table answers.

    A block's items are drawn from ``derive_seed(seed, 0, block)``; its policy starts from
    ``derive_seed(seed, 1, block)``.

    Raises:
        ConfigError: the policy was made for another game.
    """

    size = 512

    def __init__(self, environment: QuestionGame, policy: QuestionPolicy) -> None:
        if policy.world is not environment.world:
            raise ConfigError(f"{environment.name}: the policy was made for another game; make it for this one")
        self.policy = policy
        self.world = world = environment.world
        self.sought = environment.sought
        # Turns are immutable: the games share them.
        moves = range(len(world.outcomes))
        self._first = Turn("user", FIRST_OBSERVATION)
        self._asked = [[Turn(AGENT_ROLE, form + "\n", -1.0) for form in world.forms(move)] for move in moves]
        self._found = [[Turn(AGENT_ROLE, form + "\n", 0.0) for form in world.forms(move)] for move in moves]
        self._replies = [[Turn("user", reply + "\n") for reply in world.replies(move)] for move in moves]

    def play(self, seed: int, block: int) -> list[Trajectory]:
        self.policy.seed(derive_seed(seed, 1, block))
        rng = np.random.default_rng(derive_seed(seed, 0, block))
        items = rng.integers(len(self.world.items), size=self.size)
        fitting = np.ones((self.size, len(self.world.items)), bool)
        belief = self.policy.first_belief(self.size)
        games: list[list[Turn]] = [[self._first] for _ in range(self.size)]
        right = np.zeros(self.size, bool)
        playing = np.arange(self.size)
        for _ in range(TURNS):
            moves = self.policy.choose(fitting, belief)
            forms = self.policy.wording(moves)
            sought = items[playing]
            replies = self.world.outcomes[moves, sought]
            found = moves == len(self.world.questions) + sought
            for game, move, form, reply, done in zip(
                playing.tolist(), moves.tolist(), forms.tolist(), replies.tolist(), found.tolist(), strict=True
            ):
                games[game].append((self._found if done else self._asked)[move][form])
                games[game].append(self._replies[move][reply])
            self.policy.update_belief(belief, fitting, moves)
            narrow(self.world, fitting, moves, replies)
            right[playing[found]] = True
            playing, fitting, belief = playing[~found], fitting[~found], belief[~found]
            if not len(playing):
                break
        return [
            Trajectory(turns, "terminated", {self.sought: self.world.items[item].names[0], "success": success})
            for turns, item, success in zip(games, items.tolist(), right.tolist(), strict=True)
        ]
