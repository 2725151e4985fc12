"""ALFWorld as an environment: text in, text out."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import gymnasium

from qsft.data.thoughts import split_thought
from qsft.data.trajectory import Trajectory
from qsft.envs.alfworld.engine import Game
from qsft.envs.alfworld.houses import GAMES, SPLITS, game_name, generate
from qsft.envs.alfworld.spec import TASK_TYPES, Spec
from qsft.envs.alfworld.symbols import symbols, whole_parts
from qsft.envs.alfworld.texts import WORDINGS
from qsft.envs.base import Environment
from qsft.errors import ConfigError


class ALFWorld(Environment):
    """Household tasks in a room; rules and texts of ALFWorld's text games (its README tells the differences).

    An action is a command, ``"go to shelf 1"``; blanks around it do not matter, and a thought may stand before it
    (:mod:`qsft.data.thoughts`). What is none of the commands that are
    possible now is answered ``"Nothing happens."``. Reaching the goal earns 1 and ends the episode (``terminated``),
    everything else earns 0; the last step that is allowed cuts it (``truncated``).

    ``info`` holds ``admissible_commands``, sorted; at the end also ``success``, ``game`` and ``spec``.
    ``reset(options={"game": name})`` pins a generated game by its name, ``"unseen/look_at_obj_in_light/81"``;
    ``{"spec": {...}}`` gives a game of your own (:meth:`qsft.envs.alfworld.spec.Spec.from_dict`).

    Args:
        split: ``"train"``; ``"seen"``: other games in the same houses; ``"unseen"``: in houses of their own.
        task_types: the types to draw from, ``None`` for all six, each as often.
        max_steps: commands an episode may take; 50 as in ALFWorld, the paper has 30.
        wording: ``"move"``, the texts since 0.4, or ``"put"``, those before (``put X in/on Y``).

    Raises:
        ConfigError: a value that is not allowed.
    """

    name: str = "alfworld"
    policies: ClassVar[dict[str, str]] = {
        "random": "qsft.envs.alfworld.policies:RandomPolicy",
        "population": "qsft.envs.alfworld.policies:PopulationPolicy",
        "expert": "qsft.envs.alfworld.policies:ExpertPolicy",
        "slipping": "qsft.envs.alfworld.policies:SlippingPolicy",
    }
    reset_options = ("game", "spec")
    thoughts: ClassVar[bool] = True
    return_range = (0.0, 1.0)

    def __init__(
        self,
        split: str = "train",
        task_types: Sequence[str] | None = None,
        max_steps: int = 50,
        wording: str = "move",
    ) -> None:
        if split not in SPLITS:
            raise ConfigError(f"alfworld: split={split!r:.60} is unknown; use one of {', '.join(SPLITS)}")
        types = TASK_TYPES if task_types is None else task_types
        if isinstance(types, str) or not types or any(each not in TASK_TYPES for each in types):
            raise ConfigError(
                f"alfworld: task_types={task_types!r:.80}; give a list of some of {', '.join(TASK_TYPES)}"
            )
        if isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 1:
            raise ConfigError(f"alfworld: max_steps={max_steps!r:.60}; give a whole number of at least 1")
        if wording not in WORDINGS:
            raise ConfigError(f"alfworld: wording={wording!r:.60} is unknown; use one of {', '.join(WORDINGS)}")
        #: options of the game of texts
        self.game_options: dict[str, Any] = {
            "split": split,
            "task_types": task_types,
            "max_steps": max_steps,
            "wording": wording,
        }
        self.split = split
        self.task_types = tuple(dict.fromkeys(types))
        self.max_turns = max_steps
        self.wording = WORDINGS[wording]
        self.action_space = gymnasium.spaces.Text(max_length=100, charset=string.printable)
        self.observation_space: gymnasium.Space = gymnasium.spaces.Text(4000, charset=string.printable)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts a game, drawn from the split unless ``options`` pin one.

        Raises:
            ConfigError: unknown option, a name that no game has, a spec with a mistake, or both game and spec.
        """
        super().reset(seed=seed, options=options)
        self._playing = False  # until the options are known to be fine
        pins = self.pins(options)
        name, given = (pins.get(key) for key in self.reset_options)
        if name is not None and given is not None:
            raise ConfigError("alfworld: game and spec pin different games; give one of them")
        if given is not None:
            spec = Spec.from_dict(given)
        else:
            if name is None:
                task_type = self.task_types[int(self.np_random.integers(len(self.task_types)))]
                name = game_name(self.split, task_type, int(self.np_random.integers(GAMES)))
            spec = generate(name)
        self._pins = {"game": name, "spec": given}
        self._game = Game(spec, self.wording)
        self._steps = 0
        self._playing = True
        return self._game.intro, {"admissible_commands": self._game.admissible}

    def step(self, action: str) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One command.

        Raises:
            EpisodeError: the episode is over or was never started, or ``action`` is not a ``str``.
        """
        self.check_step(action)
        self._steps += 1
        answer = self._game.step(split_thought(action)[1])
        won = self._game.won
        info: dict[str, Any] = {"admissible_commands": self._game.admissible}
        truncated = not won and self._steps == self.max_turns
        if won or truncated:
            self._playing = False
            info.update(success=won, **self._pins)
        return answer, float(won), won, truncated, info

    @classmethod
    def kind(cls, metadata: Mapping[str, Any]) -> str | None:
        """The type of the task."""
        name, spec = metadata["game"], metadata["spec"]
        return str(spec["task_type"] if name is None else name.split("/")[1])

    def symbols(self, whole_actions: bool = False) -> list[str]:
        """The words and numbers of the texts of generated games, with their marks, and a newline.

        Args:
            whole_actions: the parts of commands too, such as ``go to`` and ``shelf 2`` (there are too many commands for a
                symbol each). Commands survive a tokenizer of these; other texts get a blank before the marks behind names.
        """
        return [*symbols(self.wording), *(whole_parts() if whole_actions else ())]

    def corpus(self, texts: int, seed: int = 0) -> Iterator[Trajectory]:
        """Tours of rooms of this split, see :func:`qsft.envs.alfworld.corpus.tours`."""
        from qsft.envs.alfworld.corpus import tours  # it needs the players, who need this class

        return tours(ALFWorld(**self.game_options), texts, seed)
