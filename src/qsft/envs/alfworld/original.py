"""The original's text games, for those who have them: PyPI ``alfworld`` and a folder of its game files."""

from __future__ import annotations

import os
import string
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import gymnasium

from qsft.data.thoughts import split_thought
from qsft.envs.alfworld.env import ALFWorld
from qsft.envs.alfworld.game_folder import game_names, no_games, read_game, task_type
from qsft.envs.alfworld.texts import WORDINGS
from qsft.envs.base import Environment
from qsft.errors import ConfigError

GAME_FILE = "game.tw-pddl"


class OriginalALFWorld(Environment):
    """Games of the original, played by its own engine; texts, rewards and endings are as in :class:`ALFWorld`.

    ``make("qsft.envs.alfworld.original:OriginalALFWorld", folder=".../json_2.1.1/valid_unseen")``. Our scripted
    policies play it where the goal is one of the templates'.

    Args:
        folder: holds game files, ``game.tw-pddl``, at any depth; read once in a process, by the first environment.
        max_steps: commands an episode may take.

    Attributes:
        wording: which of :data:`~qsft.envs.alfworld.texts.WORDINGS` the game files are written in, as the first of
            them has it.

    Raises:
        ConfigError: the package is not installed, or the folder holds no game that can be played.
    """

    name: str = "alfworld-original"
    policies: ClassVar[dict[str, str]] = dict(ALFWorld.policies)
    reset_options = ("game",)
    thoughts: ClassVar[bool] = True
    return_range = (0.0, 1.0)

    def __init__(self, folder: str | os.PathLike[str], max_steps: int = 50) -> None:
        if isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 1:
            raise ConfigError(f"alfworld-original: max_steps={max_steps!r:.60}; give a whole number of at least 1")
        self.folder = Path(folder)
        games, grammar = _games(self.folder.resolve())
        self.games = list(games)
        # both grammars speak of "in/on", but only the older one's command does
        self.wording = WORDINGS["put" if "put {o} in/on" in grammar else "move"]
        self.max_turns = max_steps
        self._engine: Any = None
        self.action_space = gymnasium.spaces.Text(max_length=100, charset=string.printable)
        self.observation_space = gymnasium.spaces.Text(max_length=4000, charset=string.printable)

    @classmethod
    def kind(cls, metadata: Mapping[str, Any]) -> str | None:
        return task_type(metadata)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Starts a game; ``options={"game": name}`` pins it, else it is drawn uniformly from :attr:`games`.

        Raises:
            ConfigError: unknown option, or a game that is not in the folder.
        """
        super().reset(seed=seed, options=options)
        self._playing = False
        drawn = self.games[int(self.np_random.integers(len(self.games)))]
        name = (options or {}).get("game") or drawn
        if name not in self.games:
            raise ConfigError(f"alfworld-original: game {name!r:.80} is not in {self.folder}")
        self._game = name
        path = self.folder / name / GAME_FILE
        if self._engine is None:
            self._engine = _start(path)
        else:
            self._engine.load(str(path))  # a new engine would map its planner into memory once more
        state = self._engine.reset()
        self._steps = 0
        self._playing = True
        return state.feedback.strip(), {"admissible_commands": list(state["admissible_commands"])}

    def close(self) -> None:
        """Ends the engine."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """One command.

        Raises:
            EpisodeError: the episode is over or was never started, or ``action`` is not a ``str``.
        """
        self.check_step(action)
        self._steps += 1
        state, _, _ = self._engine.step(split_thought(action)[1])
        won = bool(state["won"])
        info: dict[str, Any] = {"admissible_commands": list(state["admissible_commands"])}
        truncated = not won and self._steps == self.max_turns
        if won or truncated:
            self._playing = False
            info.update(success=won, game=self._game)
        return state.feedback.strip(), float(won), won, truncated, info


@lru_cache(maxsize=8)  # thousands of files, and many environments play them side by side
def _games(folder: Path) -> tuple[tuple[str, ...], str]:
    """Names of the games in a folder that can be played, and the grammar of the first."""
    games: list[str] = []
    grammar = ""
    for name in game_names(folder, GAME_FILE):
        game = _read(folder / name / GAME_FILE)
        if game.get("solvable", True):
            games.append(name)
            grammar = grammar or game["grammar"]
    if not games:
        raise no_games("alfworld-original", folder, GAME_FILE)
    return tuple(games), grammar


def _read(path: Path) -> dict[str, Any]:
    """A game file."""
    game = read_game("alfworld-original", path)
    if not isinstance(game, dict) or not isinstance(game.get("grammar"), str):
        raise ConfigError(f"alfworld-original: {path}: field grammar is missing; it is no game file of the original")
    return game


def _start(path: Path) -> Any:
    """The original's engine with a game loaded."""
    try:
        import textworld
        from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
    except ImportError as error:
        raise ConfigError(f"alfworld-original: it needs the original ({error}); pip install alfworld") from error
    infos = textworld.EnvInfos(won=True, admissible_commands=True)
    return textworld.start(str(path), infos, wrappers=[AlfredDemangler()])
