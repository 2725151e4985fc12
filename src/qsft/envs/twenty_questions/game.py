"""The game itself, whatever is to be found: questions in, answers out, twenty turns."""

from __future__ import annotations

import difflib
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import gymnasium

from qsft.envs.base import BlockPlayer, Environment
from qsft.envs.twenty_questions.oracles import Endpoint, ModelOracle, Oracle, TableOracle
from qsft.envs.twenty_questions.rules import STARTS, Tagger, clean_question, names_item
from qsft.envs.twenty_questions.world import NO, YES, Item, World
from qsft.errors import ConfigError

if TYPE_CHECKING:
    from qsft.data.trajectory import Trajectory
    from qsft.policies.base import Policy

FIRST_OBSERVATION = "Questions:\n"
TURNS = 20


class QuestionGame(Environment):
    """Find an item by questions; the base of Twenty Questions and Guess My City.

    Subclasses set :attr:`sought` and the world.

    Args:
        world: the closed world that policies know and the table answers from.
        items: what may be drawn, in place of the world's own items.
        oracle: ``"table"``; a mapping with the arguments of :class:`~qsft.envs.twenty_questions.oracles.Endpoint`; or
            any callable ``(names, question) -> answer``.
        nouns: see :func:`~qsft.envs.twenty_questions.rules.names_item`.

    Raises:
        ConfigError: a value that is not allowed.
    """

    #: what is to be found; the name of the reset option that pins it
    sought: ClassVar[str]
    #: first words of a question that is not malformed
    starts: ClassVar[tuple[str, ...]] = STARTS
    return_range = (-float(TURNS), 0.0)
    max_turns = TURNS

    def __init__(
        self, world: World, items: Sequence[Item] | None, oracle: str | Mapping[str, Any] | Oracle, nouns: Tagger | None
    ) -> None:
        self.world = world
        self.items = world.items if items is None else tuple(items)
        if items is not None and oracle == "table":
            raise ConfigError(
                f"{self.name}: the table knows its own {self.sought}s only; give an oracle for yours, "
                "such as {'base_url': 'http://localhost:8000/v1', 'model': '...'}"
            )
        self._index = {name.lower(): number for number, item in enumerate(self.items) for name in item.names}
        self.oracle = self._make_oracle(oracle)
        # only what we make ourselves is known to give the same answer again
        self.repeatable = isinstance(self.oracle, TableOracle)
        self._nouns = nouns
        self.action_space = gymnasium.spaces.Text(max_length=1000, charset=string.printable)
        self.observation_space = gymnasium.spaces.Text(max_length=1000, charset=string.printable)

    def _make_oracle(self, oracle: str | Mapping[str, Any] | Oracle) -> Oracle:
        if oracle == "table":
            return TableOracle(self.world)
        if isinstance(oracle, Mapping):
            try:
                # One for all environments with these settings: they share its memory and know together if it is down.
                return _endpoint_oracle(self.sought, **oracle)
            except TypeError as error:
                raise ConfigError(
                    f"{self.name}: oracle={dict(oracle)!r:.100}: give base_url, model and, if you like, timeout, "
                    "retries, api_key_env"
                ) from error
        if callable(oracle):
            return oracle
        raise ConfigError(
            f"{self.name}: oracle={oracle!r:.60} is none; give 'table', base_url and model in a mapping, or a callable"
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Starts a game. The option named like :attr:`sought` pins what is to be found, by any of its names.

        Raises:
            ConfigError: unknown option, or a name that nothing here has.
        """
        name = self.pins(options).get(self.sought)
        if name is not None and not (isinstance(name, str) and name.lower() in self._index):
            near = difflib.get_close_matches(name.lower(), self._index, 3) if isinstance(name, str) else []
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise ConfigError(
                f"{self.name}: {self.sought} {name!r:.60} is none of the {len(self.items)} that there are{hint}"
            )
        super().reset(seed=seed, options=options)
        drawn = int(self.np_random.integers(len(self.items)))
        self._item = self.items[drawn if name is None else self._index[name.lower()]]
        self._turns = 0
        return FIRST_OBSERVATION, {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """One question.

        Raises:
            EpisodeError: the game is over or was never started, or ``action`` is not a ``str``.
            OracleError: the oracle cannot answer.
        """
        self.check_step(action)
        question = clean_question(action, self.starts)
        answer = NO if question is None else self.oracle(self._item.names, question)
        self._turns += 1
        found = question is not None and answer.strip() == YES and names_item(question, self._item.names, self._nouns)
        self._playing = not found and self._turns < TURNS
        info = {} if self._playing else {"success": found, self.sought: self._item.names[0]}
        return answer + "\n", 0.0 if found else -1.0, not self._playing, False, info

    def symbols(self, whole_actions: bool = False) -> list[str]:
        """Every piece of the texts of the world's questions, guesses and answers, and a newline.

        With ``whole_actions`` each wording of a question or a guess is one piece.

        Raises:
            ConfigError: with items of one's own or another oracle than the table, whose texts are not known.
        """
        if not isinstance(self.oracle, TableOracle):
            return super().symbols(whole_actions)
        return [FIRST_OBSERVATION.strip(), "\n", *self.world.pieces(whole_actions)]

    def corpus(self, texts: int, seed: int = 0) -> Iterator[Trajectory]:
        """See :func:`qsft.envs.twenty_questions.corpus.riddles`; always about our own world."""
        from qsft.envs.twenty_questions.corpus import riddles

        return riddles(self.world, texts, seed)

    def block_player(self, policy: Policy) -> BlockPlayer | None:
        from qsft.envs.twenty_questions.collect import QuestionPlayer
        from qsft.envs.twenty_questions.policies import QuestionPolicy

        if isinstance(policy, QuestionPolicy) and isinstance(self.oracle, TableOracle):
            return QuestionPlayer(self, policy)
        return None


@cache
def _endpoint_oracle(kind: str, **settings: Any) -> Oracle:
    return ModelOracle(Endpoint(**settings), kind)


def known_nouns(words: Sequence[str]) -> Callable[[Sequence[str]], frozenset[str]]:
    """A tagger to which exactly ``words`` (in lower case) are nouns."""
    nouns = frozenset(words)
    return nouns.intersection
