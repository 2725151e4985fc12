"""Scripted games by the hundred thousand: whole games side by side in threads, each with an engine of its own.

Threads and not processes, because the engines, which do most of the work, are processes already.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from qsft.data.trajectory import AGENT_ROLE, Trajectory, Turn
from qsft.envs.chess.engine import EngineError
from qsft.envs.chess.env import Chess
from qsft.envs.chess.policies import ChessPolicy
from qsft.envs.chess.texts import action_text
from qsft.envs.rollout import derive_seed

logger = logging.getLogger(__name__)

_GAMES_A_WORKER = 16


class ChessPlayer:
    """The :class:`qsft.envs.base.BlockPlayer` of the scripted policies of :class:`Chess` and its subclasses.

    Episode i is reset with ``derive_seed(seed, 0, i)`` and its player draws from ``derive_seed(seed, 1, i)``: neither
    the number of workers nor the size of a block changes any game. A game that the engine fails in is played once more;
    where it fails again, the game has ``metadata["error"]``.

    Args:
        environment: with whose options to play.
        policy: the player of White.
        workers: games at the same time; ``None``: as many as there are cores to use.
    """

    def __init__(self, environment: Chess, policy: ChessPolicy, workers: int | None = None) -> None:
        workers = workers or _cores()
        self.size = _GAMES_A_WORKER * workers
        self._policy = policy
        self._thread = threading.local()
        self._executor = ThreadPoolExecutor(
            workers, "chess", initializer=_prepare, initargs=(self._thread, environment)
        )
        weakref.finalize(self, self._executor.shutdown, wait=False, cancel_futures=True)

    def play(self, seed: int, block: int) -> list[Trajectory]:
        episodes = range(block * self.size, (block + 1) * self.size)
        games = [self._executor.submit(_game, self._thread, self._policy, seed, episode) for episode in episodes]
        try:
            return [game.result() for game in games]
        except BaseException:
            for game in games:
                game.cancel()
            raise


def _prepare(thread: threading.local, environment: Chess) -> None:
    thread.environment = environment.twin()


def _game(thread: threading.local, policy: ChessPolicy, seed: int, episode: int) -> Trajectory:
    try:
        return _play(thread.environment, policy, seed, episode)
    except EngineError as error:
        logger.warning("game %d is played again: %s", episode, error)
    try:
        return _play(thread.environment, policy, seed, episode)
    except EngineError as error:
        return Trajectory(metadata={"error": str(error)})


def _play(environment: Chess, policy: ChessPolicy, seed: int, episode: int) -> Trajectory:
    observation, _ = environment.reset(seed=derive_seed(seed, 0, episode))
    choose = policy.begin(np.random.default_rng(derive_seed(seed, 1, episode)))
    game = Trajectory([Turn("user", observation)])
    while game.ended is None:
        board = environment.position
        action = action_text(board.san(choose(board)))
        observation, reward, terminated, truncated, info = environment.step(action)
        game.turns += [Turn(AGENT_ROLE, action, reward), Turn("user", observation)]
        if terminated or truncated:
            game.ended = "terminated" if terminated else "truncated"
            game.metadata = {"fen": info["fen"], "replies": info["replies"], "success": info["success"]}
    return game


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
