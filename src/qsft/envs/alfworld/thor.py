"""The original's visual mode, for those who have it: ``pip install 'alfworld[vis]'`` and a folder of its games.

Its engine is AI2-THOR: a screen is needed, and its package fetches a Unity build at the first start.
"""

from __future__ import annotations

import os
import string
from collections.abc import Mapping
from pathlib import Path
from queue import Queue
from typing import Any, ClassVar

import gymnasium
import numpy as np

from qsft.data.thoughts import split_thought
from qsft.envs.alfworld.game_folder import game_names, no_games, read_game, task_type
from qsft.envs.alfworld.images import TEXTS
from qsft.envs.alfworld.texts import reminded, task_sentence
from qsft.envs.base import Environment
from qsft.errors import ConfigError

GAME_FILE = "traj_data.json"


class ThorALFWorld(Environment):
    """Games of the original in AI2-THOR; observations, rewards and endings are as in ``alfworld-image``.

    ``make("qsft.envs.alfworld.thor:ThorALFWorld", folder=".../json_2.1.1/valid_unseen")``. What is done is done by the
    original's ``oracle`` controller, which knows where things are; its texts have the older wording (``put X in/on Y``).

    Args:
        folder: holds the original's ``traj_data.json``, at any depth.
        max_steps: commands an episode may take.
        text: ``"full"``: what the original tells, with the task behind it; ``"withheld"``: the task alone.
        image_size: side of the frames in pixels, at least 1.

    Attributes:
        games: their folders' names, relative to ``folder``.

    Raises:
        ConfigError: a value that is not allowed, or the folder holds no game that can be played.
    """

    name: str = "alfworld-thor"
    reset_options = ("game",)
    thoughts: ClassVar[bool] = True
    return_range = (0.0, 1.0)

    def __init__(
        self, folder: str | os.PathLike[str], max_steps: int = 50, text: str = "full", image_size: int = 300
    ) -> None:
        for option, value in (("max_steps", max_steps), ("image_size", image_size)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"alfworld-thor: {option}={value!r:.60}; give a whole number of at least 1")
        if text not in TEXTS:
            raise ConfigError(f"alfworld-thor: text={text!r:.60}; use one of {', '.join(TEXTS)}")
        self.folder = Path(folder)
        self.games = list(game_names(self.folder.resolve(), GAME_FILE))
        if not self.games:
            raise no_games("alfworld-thor", folder, GAME_FILE)
        self.max_turns = max_steps
        self.text = text
        self._size = image_size
        self._thor: Any = None
        self.action_space = gymnasium.spaces.Text(max_length=100, charset=string.printable)
        said = gymnasium.spaces.Text(max_length=4000, charset=string.printable)
        image = gymnasium.spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        self.observation_space = gymnasium.spaces.Dict({"text": said, "image": image})

    @classmethod
    def kind(cls, metadata: Mapping[str, Any]) -> str | None:
        return task_type(metadata)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts a game; ``options={"game": name}`` pins it, else it is drawn uniformly from :attr:`games`.

        The first call starts AI2-THOR.

        Raises:
            ConfigError: unknown option, a game that is not in the folder or whose file is broken, or the original's visual
                mode is missing.
        """
        super().reset(seed=seed, options=options)
        self._playing = False
        drawn = self.games[int(self.np_random.integers(len(self.games)))]
        name = (options or {}).get("game") or drawn
        if name not in self.games:
            raise ConfigError(f"alfworld-thor: game {name!r:.80} is not in {self.folder}")
        read_game("alfworld-thor", self.folder / name / GAME_FILE)  # its own loader does not explain a broken one
        if self._thor is None:
            self._thor = _start(self._size)
        self._game = name
        self._thor.reset(str(self.folder / name / GAME_FILE))
        self._first, _, commands, *_ = self._thor.get_results()
        self._steps = 0
        self._playing = True
        return self._seen(self._first), {"admissible_commands": list(commands)}

    def step(self, action: str) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One command.

        Raises:
            EpisodeError: the episode is over or was never started, or ``action`` is not a ``str``.
        """
        self.check_step(action)
        self._steps += 1
        self._thor.step(split_thought(action)[1].strip())
        answer, _, commands, won, *_ = self._thor.get_results()
        won = bool(won)
        info: dict[str, Any] = {"admissible_commands": list(commands)}
        truncated = not won and self._steps == self.max_turns
        if won or truncated:
            self._playing = False
            info.update(success=won, game=self._game)
        return self._seen(reminded(answer, self._first)), float(won), won, truncated, info

    def close(self) -> None:
        """Ends AI2-THOR."""
        if self._thor is not None:
            self._thor.env.stop()
            self._thor = None

    def _seen(self, told: str) -> dict[str, Any]:
        text = told if self.text == "full" else task_sentence(self._first)
        # Its frames are blue, green, red.
        return {"text": text, "image": np.ascontiguousarray(self._thor.get_last_frame()[:, :, ::-1])}


def _start(size: int) -> Any:
    """The original's player of one game at a time, with AI2-THOR started.

    It is meant to be a thread that takes commands from a queue; called directly, its errors are ours to see.
    """
    try:
        from alfworld.agents.environment.alfred_thor_env import AlfredThorEnv
    except ImportError as error:
        raise ConfigError(
            f"alfworld-thor: it needs the original's visual mode ({error}); pip install 'alfworld[vis]'"
        ) from error
    thor = AlfredThorEnv.Thor(Queue(), "eval")
    window = {"screen_height": size, "screen_width": size, "smooth_nav": False}
    thor.init_env(
        {
            "env": {
                "thor": {**window, "save_frames_to_disk": False, "save_frames_path": ""},
                "goal_desc_human_anns_prob": 0.0,
            },
            "controller": {"type": "oracle", "load_receps": True, "debug": False},
            # Its own limit of steps; ours ends an episode.
            "general": {"training_method": "dqn"},
            "rl": {"training": {"max_nb_steps_per_episode": 1_000_000}},
        }
    )
    return thor
