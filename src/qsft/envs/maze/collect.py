"""Scripted episodes in the maze: the same as turn by turn, without reading each history again at every turn."""

from __future__ import annotations

from qsft.data.trajectory import AGENT_ROLE, Trajectory, Turn
from qsft.envs.maze.env import MazeGame
from qsft.envs.maze.policies import MazePolicy
from qsft.envs.maze.texts import ACTIONS
from qsft.envs.rollout import derive_seed
from qsft.errors import ConfigError


class MazePlayer:
    """The :class:`qsft.envs.base.BlockPlayer` of the maze's scripted policies.

    Episode i is reset with ``derive_seed(seed, 0, i)``; the policy restarts from ``derive_seed(seed, 1, block)``.

    Raises:
        ConfigError: the policy was made for other mazes or another kind of observation than the environment's.
    """

    size = 64

    def __init__(self, environment: MazeGame, policy: MazePolicy) -> None:
        if (policy.mazes, policy.observation) != (environment.mazes, environment.observation):
            raise ConfigError("maze: the policy was made for other mazes or observations; make it for this environment")
        self.policy = policy
        names = [maze.name for maze in environment.mazes]
        self.environments = [
            MazeGame(names, environment.observation, environment.invalid_reward) for _ in range(self.size)
        ]

    def play(self, seed: int, block: int) -> list[Trajectory]:
        policy = self.policy
        policy.seed(derive_seed(seed, 1, block))
        episodes, memories = [], []
        for number, environment in enumerate(self.environments, start=block * self.size):
            observation, _ = environment.reset(seed=derive_seed(seed, 0, number))
            episodes.append(Trajectory([Turn("user", observation)]))
            memories.append(policy.remember(observation))
        playing = list(range(self.size))
        while playing:
            for game in playing:
                action = ACTIONS[policy.choose(memories[game])]
                observation, reward, over, _, info = self.environments[game].step(action)
                episodes[game].turns += [Turn(AGENT_ROLE, action, reward), Turn("user", observation)]
                if over:
                    episodes[game].ended = "terminated"
                    pinned = {name: info[name] for name in MazeGame.reset_options}
                    episodes[game].metadata = {**pinned, "success": info["success"]}
                else:
                    memories[game] = policy.learn(memories[game], action, observation)
            playing = [game for game in playing if episodes[game].ended is None]
        return episodes
