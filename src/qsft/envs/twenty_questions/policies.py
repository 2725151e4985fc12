"""Scripted players of Twenty Questions and Guess My City.

One piece of code decides (``choose``, on arrays); ``act`` reads histories into arrays and words the answer, so a policy
plays the same over texts and in the fast generator.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from qsft.envs.twenty_questions.game import QuestionGame
from qsft.envs.twenty_questions.world import World
from qsft.errors import ConfigError

if TYPE_CHECKING:
    from qsft.data.trajectory import Trajectory

Fitting = NDArray[np.bool_]
Moves = NDArray[np.intp]


class QuestionPolicy(ABC):
    """A player that knows the world's table and looks at nothing but what was asked and answered.

    Args:
        environment: the game to be played; its world is used, its state is not.

    Raises:
        ConfigError: an environment with items of its own, which the table does not know.
    """

    name: str

    def __init__(self, environment: QuestionGame) -> None:
        if environment.items is not environment.world.items:
            raise ConfigError(
                f"policy {self.name!r}: it knows the table's {environment.sought}s only; leave out your own"
            )
        self.world: World = environment.world
        self.seed(0)

    def seed(self, seed: int) -> None:
        """Restarts the random generator."""
        self.rng = np.random.default_rng(seed)

    @abstractmethod
    def choose(self, fitting: Fitting, belief: NDArray[np.float64]) -> Moves:
        """``fitting [G, N]``: the items that fit, at least one a game; ``belief [G, K]`` -> moves ``[G]``."""

    def first_belief(self, games: int) -> NDArray[np.float64]:
        """``[G, K]``: what there is to remember of a game beside the items that fit, at its start."""
        return np.ones((games, 1))

    def update_belief(self, belief: NDArray[np.float64], fitting: Fitting, moves: Moves) -> None:
        """Changes ``belief`` in place by a move of each game, chosen when ``fitting`` was what fitted."""
        return  # most players remember nothing else

    def wording(self, moves: Moves) -> Moves:
        """Which of a move's wordings is used, ``[G]``: the plainest half of the time, else any."""
        any_form = self.rng.integers(self.world.wordings[moves])
        return np.where(self.rng.random(len(moves)) < 0.5, 0, any_form)

    def act(self, histories: Sequence[Trajectory]) -> list[str]:
        """One question a history. What was said that the world does not understand tells a policy nothing."""
        fitting = np.ones((len(histories), len(self.world.items)), bool)
        belief = self.first_belief(len(histories))
        for game, history in enumerate(histories):
            for turn, reply in zip(history.turns, history.turns[1:], strict=False):
                move = self.world.move_of(turn.text) if turn.is_agent else None
                if move is None:
                    continue
                one = slice(game, game + 1)
                moves = np.array([move])
                self.update_belief(belief[one], fitting[one], moves)
                replies = self.world.replies(move)
                said = reply.text.strip()
                if said in replies:
                    narrow(self.world, fitting[one], moves, np.array([replies.index(said)]))
        moves = self.choose(fitting, belief)
        return [
            self.world.forms(move)[form] + "\n"
            for move, form in zip(moves.tolist(), self.wording(moves).tolist(), strict=True)
        ]


def narrow(world: World, fitting: Fitting, moves: Moves, replies: NDArray[np.integer]) -> None:
    """Takes from ``fitting [G, N]`` the items of which a move ``[G]`` would have another reply ``[G]``.

    A reply that would leave no item (another oracle than the table may give it) takes none.
    """
    left = fitting & (world.outcomes[moves] == replies[:, None])
    possible = left.any(1)
    fitting[possible] = left[possible]


class RandomPolicy(QuestionPolicy):
    """Any question, any guess, all equally likely."""

    name = "random"

    def choose(self, fitting: Fitting, belief: NDArray[np.float64]) -> Moves:
        return self.rng.integers(len(self.world.outcomes), size=len(fitting))


class _Information:
    """How much the reply to each question tells, as the entropy in bits over the items that fit."""

    def __init__(self, world: World) -> None:
        asked = len(world.questions)
        sizes = [len(question.replies) for question in world.questions]
        self._starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        # A row for each reply of each question: the items of which it is true.
        self._true = np.concatenate(
            [world.outcomes[q] == np.arange(size)[:, None] for q, size in zip(range(asked), sizes, strict=True)]
        ).astype(np.float32)
        counts = np.arange(len(world.items) + 1)
        self._cost = (counts * np.log2(np.maximum(counts, 1))).astype(np.float32)

    def __call__(self, fitting: Fitting) -> NDArray[np.float32]:
        """``[G, N] -> [G, Q]``."""
        counts = (fitting.astype(np.float32) @ self._true.T).astype(np.intp)
        left = fitting.sum(1)
        spent = np.add.reduceat(self._cost[counts], self._starts, axis=1)
        return np.maximum(self._cost[left][:, None] - spent, 0) / left[:, None].astype(np.float32)


@dataclass(frozen=True)
class Player:
    """How one kind of player decides.

    Attributes:
        share: of the population.
        attention: probability that a question is one that tells something, and that a guess fits what was said; else
            it is any question, any guess.
        guesses: probability of a guess while very many items fit.
        finishes: the same when only one fits; in between it is ``guesses + (finishes - guesses) / items that fit``.
    """

    share: float
    attention: float
    guesses: float
    finishes: float


class PopulationPolicy(QuestionPolicy):
    """Players of mixed skill; each game is played by one of them. The behaviour policy of the data.

    An attentive question is drawn with a probability in proportion to the square of the information it gives.

    Nobody tells the policy who plays a game, so that it needs no memory: a kind of player is as likely as the game's
    earlier moves make it, and the next move is drawn from all kinds so weighted. That is the same distribution of games
    as drawing a player for each game at its start.
    """

    name = "population"
    #: novices, ordinary players, good players; the shares give the data the paper's mean return, -17.3
    PLAYERS: ClassVar[tuple[Player, ...]] = (
        Player(0.52, 0.15, 0.35, 0.50),
        Player(0.33, 0.45, 0.10, 0.75),
        Player(0.15, 0.85, 0.03, 0.95),
    )

    def __init__(self, environment: QuestionGame) -> None:
        super().__init__(environment)
        self._information = _Information(self.world)
        shares = np.array([player.share for player in self.PLAYERS])
        self._shares = shares / shares.sum()
        self._attention, self._guesses, self._finishes = (
            np.array([getattr(player, field) for player in self.PLAYERS])
            for field in ("attention", "guesses", "finishes")
        )

    def first_belief(self, games: int) -> NDArray[np.float64]:
        """``[G, K]``: how likely each kind of player is to be the one who plays."""
        return np.tile(self._shares, (games, 1))

    def choose(self, fitting: Fitting, belief: NDArray[np.float64]) -> Moves:
        games, items = fitting.shape
        asked = len(self.world.questions)
        # The next move is one of the likely players', drawn afresh; so are all of its decisions.
        player = _draw(belief, self.rng)
        guess = self.rng.random(games) < self._guessing(fitting)[np.arange(games), player]
        attentive = self.rng.random(games) < self._attention[player]
        moves = np.where(guess, asked + self.rng.integers(items, size=games), self.rng.integers(asked, size=games))
        fits = guess & attentive
        moves[fits] = asked + _draw(fitting[fits].astype(np.float32), self.rng)
        telling = ~guess & attentive
        moves[telling] = _draw(self._weights(fitting[telling]), self.rng)
        return moves

    def update_belief(self, belief: NDArray[np.float64], fitting: Fitting, moves: Moves) -> None:
        asked = len(self.world.questions)
        games = np.arange(len(moves))
        guess = moves >= asked
        item = np.where(guess, moves - asked, 0)
        question = np.where(guess, 0, moves)
        attentive_guess = fitting[games, item] / fitting.sum(1)
        weights = self._weights(fitting)
        attentive_question = weights[games, question] / weights.sum(1)
        attentive = np.where(guess, attentive_guess, attentive_question)[:, None]
        blind = np.where(guess, 1 / len(self.world.items), 1 / asked)[:, None]
        guessing = self._guessing(fitting)
        belief *= np.where(guess[:, None], guessing, 1 - guessing)
        belief *= self._attention * attentive + (1 - self._attention) * blind
        belief /= belief.sum(1, keepdims=True)

    def _guessing(self, fitting: Fitting) -> NDArray[np.float64]:
        """``[G, K]``: probability that each kind of player guesses."""
        return self._guesses + (self._finishes - self._guesses) / fitting.sum(1)[:, None]

    def _weights(self, fitting: Fitting) -> NDArray[np.float32]:
        """``[G, Q]``: in proportion to which an attentive player asks; all equal where no question tells anything."""
        weights = self._information(fitting) ** 2
        weights[~(weights > 1e-9).any(1)] = 1
        return weights


class GreedyInformationPolicy(QuestionPolicy):
    """The move whose reply tells most, in expectation over the items that fit: the ceiling.

    A guess tells something too, and among equals one that may be right comes first; then the order of the table. Moves
    are remembered by state of knowledge.
    """

    name = "greedy-information"

    def __init__(self, environment: QuestionGame) -> None:
        super().__init__(environment)
        self._information = _Information(self.world)
        self._moves: dict[bytes, int] = {}

    def choose(self, fitting: Fitting, belief: NDArray[np.float64]) -> Moves:
        states = np.packbits(fitting, axis=1)
        chosen = np.empty(len(fitting), np.intp)
        for game, state in enumerate(states):
            key = state.tobytes()
            if key not in self._moves:
                self._moves[key] = self._best(fitting[game])
            chosen[game] = self._moves[key]
        return chosen

    def _best(self, fitting: Fitting) -> int:
        left = int(fitting.sum())
        told = self._information(fitting[None])[0]
        question = int(np.argmax(told > told.max() - 1e-6))
        others = left - 1
        guess = np.log2(left) - (others * np.log2(others) / left if others else 0.0)
        return len(self.world.questions) + int(np.argmax(fitting)) if guess > told[question] - 1e-6 else question


def _draw(weights: NDArray[np.floating], rng: np.random.Generator) -> Moves:
    """A column of each row, with probability in proportion to its weight."""
    heaped = np.cumsum(weights, axis=1, dtype=np.float64)
    return (heaped <= rng.random((len(weights), 1)) * heaped[:, -1:]).sum(1)
