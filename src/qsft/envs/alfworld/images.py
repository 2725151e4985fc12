"""ALFWorld with a picture in every observation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

from qsft.data.pictures import png
from qsft.data.thoughts import split_thought
from qsft.data.trajectory import Trajectory, Turn
from qsft.envs.alfworld.env import ALFWorld
from qsft.envs.alfworld.pictures import Painter
from qsft.envs.alfworld.policies import ALFWorldPolicy
from qsft.envs.alfworld.texts import reminded, task_sentence
from qsft.envs.alfworld.view import View
from qsft.envs.base import BlockPlayer
from qsft.errors import ConfigError

if TYPE_CHECKING:
    from qsft.policies.base import Policy

TEXTS = ("full", "withheld")
_GREY = 128


class ALFWorldImage(ALFWorld):
    """The same games; an observation is ``{"text": str, "image": uint8 [image_size, image_size, 3]}``.

    A picture shows what the texts of the game have told so far of where one is (:mod:`qsft.envs.alfworld.pictures`).
    Every text ends with the task, so that it is known to an agent that remembers but a few turns.

    Args:
        split, task_types, max_steps, wording: as for :class:`ALFWorld`.
        text: ``"full"``: all that the game tells; ``"withheld"``: the task alone, so that one has to look.
        image_size, labels: as for :class:`qsft.envs.alfworld.pictures.Painter`.
        blank: pictures are plain grey, for comparison: nothing can be seen.

    Raises:
        ConfigError: a value that is not allowed, or Pillow is missing.
    """

    name: str = "alfworld-image"

    def __init__(
        self,
        split: str = "train",
        task_types: Sequence[str] | None = None,
        max_steps: int = 50,
        wording: str = "move",
        text: str = "full",
        image_size: int = 300,
        labels: bool = True,
        blank: bool = False,
    ) -> None:
        super().__init__(split, task_types, max_steps, wording)
        if text not in TEXTS:
            raise ConfigError(f"alfworld-image: text={text!r:.60}; use one of {', '.join(TEXTS)}")
        if not isinstance(blank, bool):
            raise ConfigError(f"alfworld-image: blank={blank!r:.60}; give true or false")
        self.text = text
        self._painter = Painter(image_size, labels)
        self._blank = np.full((image_size, image_size, 3), _GREY, np.uint8) if blank else None
        image = gymnasium.spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        self.observation_space = gymnasium.spaces.Dict({"text": self.observation_space, "image": image})

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """As :meth:`ALFWorld.reset`."""
        first, info = super().reset(seed=seed, options=options)
        self._view, self._first = View(first), first
        return self._seen(self._view, first, first), info

    def step(self, action: str) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """As :meth:`ALFWorld.step`."""
        answer, reward, terminated, truncated, info = super().step(action)
        self._view.learn(split_thought(action)[1], answer)
        return self._seen(self._view, answer, self._first), reward, terminated, truncated, info

    def illustrate(self, game: Trajectory) -> Trajectory:
        """An episode of ``alfworld`` as it would have been here; pictures are the content of PNG files.

        Raises:
            DataError: no episode of this world.
        """
        first = game.turns[0].text
        view = View(first)
        turns: list[Turn] = []
        for turn in game.turns:
            if not turn.is_agent:
                if turns:
                    view.learn(split_thought(turns[-1].text)[1], turn.text)
                seen = self._seen(view, turn.text, first)
                turn = Turn(turn.role, seen["text"], images=(png(seen["image"]),))
            turns.append(turn)
        return Trajectory(turns, game.ended, dict(game.metadata))

    def corpus(self, texts: int, seed: int = 0) -> Iterator[Trajectory]:
        """Tours as those of ``alfworld``; before everything that is told stands its picture: a model learns to name it."""
        from qsft.envs.alfworld.corpus import tours  # it needs the players, who need the class above

        return tours(ALFWorld(**self.game_options), texts, seed, lambda view: png(self._picture(view)))

    def block_player(self, policy: Policy) -> BlockPlayer | None:
        """The scripted players read texts: they play ``alfworld``, and that is illustrated."""
        return _Illustrated(self, policy, self.game_options) if isinstance(policy, ALFWorldPolicy) else None

    def _seen(self, view: View, told: str, first: str) -> dict[str, Any]:
        if self.text == "withheld":
            text = task_sentence(first)
        else:
            text = told if told == first else reminded(told, first)
        return {"text": text, "image": self._picture(view)}

    def _picture(self, view: View) -> np.ndarray:
        return self._painter.pixels(view) if self._blank is None else self._blank.copy()


class _Illustrated:
    """Plays a scripted policy in the game of texts, and illustrates it."""

    def __init__(self, environment: ALFWorldImage, policy: Policy, options: Mapping[str, Any]) -> None:
        from qsft.envs.collect import RolloutPlayer  # which imports the registry, which imports environments

        self._environment = environment
        self._player = RolloutPlayer(ALFWorld.name, policy, options)
        self.size = self._player.size

    def play(self, seed: int, block: int) -> list[Trajectory]:
        return [self._environment.illustrate(game) for game in self._player.play(seed, block)]
