"""What every qsft environment is: gymnasium's shape with text (or pictures) in and text (or a vector) out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import gymnasium

from qsft.errors import ConfigError, QSFTError

if TYPE_CHECKING:
    from rich.text import Text

    from qsft.data.trajectory import Trajectory
    from qsft.policies.base import Policy


class EpisodeError(QSFTError, RuntimeError):
    """An environment was stepped when no episode is being played, or with something that is no action."""


class BlockPlayer(Protocol):
    """Plays one policy in one environment, a block of episodes at a time.

    A block depends on ``(seed, block)`` alone, whatever was played before: that is what makes a collection
    reproducible and resumable. ``play`` returns exactly ``size`` finished trajectories; their metadata holds the
    reset options that replay them and ``success``. One that could not be played to its end has ``metadata["error"]``.
    """

    size: int

    def play(self, seed: int, block: int) -> list[Trajectory]: ...


class Environment(gymnasium.Env):
    """Base of the environments.

    ``reset(seed=..., options=...) -> observation, info`` and
    ``step(action) -> observation, reward, terminated, truncated, info``. Each instance owns its random generator
    (``self.np_random``, seeded by ``reset``). An observation is a text, a picture (uint8 ``[height, width, 3]``), or
    ``{"text": str, "image": picture}``. ``options`` can pin everything that is otherwise drawn, so that any
    episode can be replayed. The ``info`` of an episode's last step holds ``success`` (bool) and the values of all
    ``reset_options``; before that, ``info`` holds nothing that a player must not know.

    Attributes:
        name: the name under which ``qsft.envs.make`` finds it.
        policies: its scripted policies, name -> ``"module:Class"``, where ``Class(environment, **options)`` is a
            :class:`qsft.policies.base.Policy`.
        reset_options: what ``reset(options=...)`` understands; together these pin an episode.
        return_range: ``(low, high)``, bounds on the undiscounted return-to-go from any state that can be reached.
        max_turns: agent turns after which an episode is over.
        thoughts: whether a thought may stand before an action (:mod:`qsft.data.thoughts`).
        legal_actions: all actions that the rules allow after a history that ends with the environment's turn, each in
            one spelling; ``None`` where the texts do not tell them. ``qsft evaluate --only-legal`` keeps a policy to them.
        repeatable: whether the same seed and actions lead to the same episode again; not where somebody takes part whom no
            seed governs, such as an engine limited by time or a served model.
    """

    name: str
    policies: ClassVar[Mapping[str, str]] = {}
    reset_options: ClassVar[tuple[str, ...]] = ()
    return_range: tuple[float, float]
    max_turns: int
    thoughts: ClassVar[bool] = False
    legal_actions: Callable[[Trajectory], list[str]] | None = None
    repeatable: bool = True
    _playing: bool = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Seeds the generator and checks the names in ``options``; subclasses call it first.

        Raises:
            ConfigError: options that are no mapping, or an option that is not in ``reset_options``.
        """
        super().reset(seed=seed)
        self.pins(options)
        self._playing = True
        return None, {}

    def pins(self, options: Any) -> dict[str, Any]:
        """The reset options that pin something; one that is ``None`` leaves it to be drawn.

        Raises:
            ConfigError: options that are no mapping, or an option that is not in ``reset_options``.
        """
        if options is not None and not isinstance(options, Mapping):
            example = self.reset_options[0] if self.reset_options else "name"
            raise ConfigError(f"{self.name}: reset options {options!r:.60}; give a dict, such as {{{example!r}: ...}}")
        for key in options or {}:
            if key not in self.reset_options:
                known = ", ".join(self.reset_options) or "none"
                raise ConfigError(f"{self.name}: unknown reset option {key!r}; known: {known}")
        return {key: value for key, value in (options or {}).items() if value is not None}

    def check_step(self, action: Any) -> None:
        """Call at the start of ``step`` of an environment whose actions are texts.

        Raises:
            EpisodeError: no episode is being played, or ``action`` is not a ``str``.
        """
        if not self._playing:
            raise EpisodeError(f"{self.name}: no episode is being played; call reset() before step()")
        if not isinstance(action, str):
            raise EpisodeError(f"{self.name}: an action is a str, got {type(action).__name__}")

    @classmethod
    def kind(cls, metadata: Mapping[str, Any]) -> str | None:
        """The kind of an episode, from its metadata, for tables that tell kinds apart; ``None``: there is one kind."""
        return None

    @classmethod
    def counts(cls, episode: Trajectory) -> Mapping[str, float]:
        """What is worth knowing of an episode beside its return, by name, for evaluations to average; usually nothing."""
        return {}

    def symbols(self, whole_actions: bool = False) -> list[str]:
        """All symbols of the texts, from which a word-level tokenizer can be built.

        Args:
            whole_actions: every action the agent can take is one symbol, instead of being spelt.

        Raises:
            ConfigError: the environment has no closed set of them.
        """
        raise ConfigError(f"{self.name}: its texts have no closed set of symbols; use a tokenizer of words' parts")

    def corpus(self, texts: int, seed: int = 0) -> Iterator[Trajectory]:
        """Texts in the language of the game but not of games, to pretrain a model on: what is to be learnt are agent turns.

        Raises:
            ConfigError: the environment has none.
        """
        raise ConfigError(f"{self.name}: has no texts to pretrain on; give a model that knows its language")

    def typed_action(self, text: str) -> str:
        """The action that a person means who typed ``text`` (without its newline)."""
        return text + "\n"

    def picture(self, history: Trajectory) -> Text | None:
        """An episode for the eye, in the terminal; ``None`` where the texts are all there is."""
        return None

    def block_player(self, policy: Policy) -> BlockPlayer | None:
        """A player of ``policy`` that is faster than turn by turn, with the same rules and texts; ``None`` if none.

        It plays this environment with the options it was made with. ``qsft.envs.collect`` asks for it.
        """
        return None
