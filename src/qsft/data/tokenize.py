"""Trajectories to token ids with masks that say which tokens are the agent's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qsft.data.chat_format import ChatFormat
from qsft.data.codec import Codec, Segment
from qsft.data.columns import ColumnBuilder, ReadTurns, TokenColumns
from qsft.data.exchanges import exchange_starts, newest_exchanges
from qsft.data.images import image_inputs, tokenizer_of
from qsft.data.return_tokens import ReturnTokens
from qsft.data.segment_ids import SegmentIds
from qsft.data.text_format import TextFormat
from qsft.data.trajectory import AGENT_ROLE, Trajectory, Turn
from qsft.errors import ConfigError, DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

FORMATS = ("auto", "chat", "text")


@dataclass(frozen=True)
class _Context:
    """Turns that a model reads at once, whether the agent is to speak next, and their texts."""

    turns: Sequence[Turn]
    open_end: bool
    segments: list[Segment]


@dataclass(frozen=True)
class Prompt:
    """A history as a model reads it.

    Attributes:
        input_ids: its tokens.
        prefix: how many of them stand before the agent's first; all where it has not spoken yet.
        images: those of the turns that were kept, in order.
    """

    input_ids: list[int]
    prefix: int
    images: tuple[str | bytes, ...] = ()


class TrajectoryTokenizer:
    """Tokenises trajectories for training and unfinished ones for play, by the same rules.

    What precedes a turn of the agent in training is, id for id, the :meth:`prompt` it gets in play, since the text is
    cut at both ends of each agent turn and each stretch tokenised by itself. Left out of a row is what nobody learns
    from: what follows the last agent turn, except the last observation of a truncated trajectory (with the generation
    prompt, in the chat format), which its value is bootstrapped from.

    Args:
        tokenizer: any Hugging Face tokenizer, or the processor of a vision-language model: then turns may have images
            (:class:`qsft.data.images.ImageInputs`).
        format: ``"chat"`` uses the tokenizer's chat template, ``"text"`` joins the turns' texts, ``"auto"`` is
            ``"chat"`` where there is a template.
        max_length: longest row in tokens, or longest context with ``max_exchanges``. A longer one loses its oldest
            exchanges (the environment's turns and the agent's turns that answer them), as many as needed, whole;
            system turns at the start stay. ``None``: no limit.
        end_of_turn: texts of the tokens that end a turn of the agent. Default: in the chat format what the template
            ends it with; in the text format the newline and the tokenizer's eos, which is added where a turn does not
            end with a newline.
        bos: text format only: begin with the tokenizer's bos token. Default: if it has one.
        max_exchanges: most exchanges that the model reads at a turn of the agent, the one of that turn included; older
            ones it never sees, in training as in play. A row is then one context after the other, one for each turn of
            the agent: nothing is lost to learn from, and values still reach back through the whole trajectory. 1 is
            for games whose last observation tells all (a chess position); rows are N times as long for N above 1.
            ``None``: no limit, and rows are read whole.
        return_levels: with these, the token of the nearest level to the return-to-go stands before each turn of the
            agent (:class:`qsft.data.return_tokens.ReturnTokens`), as part of what the environment says.

    Raises:
        ConfigError: a tokenizer without a usable end of turn or without the return tokens, or settings that contradict
            each other.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase | ProcessorMixin,
        format: str = "auto",
        max_length: int | None = None,
        end_of_turn: str | Sequence[str] | None = None,
        bos: bool | None = None,
        return_levels: Sequence[float] | None = None,
        max_exchanges: int | None = None,
    ) -> None:
        if format not in FORMATS:
            raise ConfigError(f"format: {format!r}; use one of {', '.join(FORMATS)}")
        if max_length is not None and max_length < 2:
            raise ConfigError(f"max_length: {max_length}; give at least 2 tokens, or leave it out")
        if max_exchanges is not None and max_exchanges < 1:
            raise ConfigError(f"max_exchanges: {max_exchanges}; give at least 1, or leave it out")
        self.processor = tokenizer
        self.tokenizer = tokenizer_of(tokenizer)
        self.images = image_inputs(tokenizer)
        if max_exchanges is not None and self.images is not None and not self.images.only_tokens:
            raise ConfigError(
                f"max_exchanges: {type(tokenizer).__name__} tells the agent's part of a text from the rest, which a "
                "text with some of its turns cannot do; leave it out, or limit max_length"
            )
        template = getattr(tokenizer, "chat_template", None) or self.tokenizer.chat_template
        if isinstance(template, dict):  # several by name, such as one for tools
            if "default" not in template:
                raise ConfigError(f"the tokenizer's chat templates are {', '.join(template)}; name one of them default")
            template = template["default"]
        if format == "auto":
            format = "chat" if template is not None else "text"
        if format == "chat" and bos is not None:
            raise ConfigError("bos: the chat template decides this in format chat; leave bos out")
        self.max_length, self.max_exchanges = max_length, max_exchanges
        self._codec = Codec(self.tokenizer)
        ends = [end_of_turn] if isinstance(end_of_turn, str) else end_of_turn
        self._format: ChatFormat | TextFormat = (
            ChatFormat(self._codec, ends, template, self.images)
            if format == "chat"
            else TextFormat(self._codec, ends, bos, self.images)
        )
        self._end_ids = set(self._format.end_of_turn.values())
        self._prefix = Segment("start", ""), np.array(self._format.prefix_ids, np.int32)
        self._ids = SegmentIds(self._codec, self._format)
        self.returns = None if return_levels is None else ReturnTokens(self.tokenizer, return_levels)

    @property
    def format(self) -> str:
        """``"chat"`` or ``"text"``."""
        return self._format.name

    @property
    def unknown_id(self) -> int | None:
        """Stands for text that the tokenizer has no token for; ``None`` where no text is lost, or the id is in other use."""
        tokenizer = self.tokenizer
        used = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
        return None if tokenizer.unk_token_id in used else tokenizer.unk_token_id

    @property
    def end_of_turn_ids(self) -> list[int]:
        """Ids that end a turn of the agent: generation stops at any of them."""
        return sorted(self._end_ids)

    def __call__(self, trajectory: Trajectory) -> dict[str, Any]:
        """One row.

        Returns:
            ``input_ids``, ``agent_mask`` (1: the agent produced the token, its end of turn included), ``turn_end`` (1:
            last token of an agent turn), all lists of T ints; ``turn_rewards``, a list with one float for each agent
            turn kept; ``terminated``, a bool; with a processor ``images``, the paths of the images in the order of
            their tokens; with ``max_exchanges`` also ``contexts``, a list with the tokens of each context, and only the
            last turn of a context counts as the agent's. The first token is never the agent's.

        Raises:
            DataError: see :meth:`batch`.
        """
        columns = self.batch([trajectory])
        extra: dict[str, Any] = {} if columns.images is None else {"images": columns.images[0]}
        if columns.contexts is not None:
            extra["contexts"] = columns.contexts[0]
        return {
            "input_ids": columns.input_ids.tolist(),
            "agent_mask": columns.agent_mask.tolist(),
            "turn_end": columns.turn_end.tolist(),
            "turn_rewards": columns.turn_rewards.tolist(),
            "terminated": bool(columns.terminated[0]),
            **extra,
        }

    def batch(self, trajectories: Sequence[Trajectory], where: Callable[[int], str] | None = None) -> TokenColumns:
        """Many rows at once, much faster than one by one.

        Args:
            where: gives how errors name the i-th trajectory.

        Raises:
            DataError: an unfinished trajectory; nothing before the agent's first token; an agent's text that does not
                end with an end of turn, holds one before its end, or that the tokenizer has no tokens for; a last
                exchange longer than ``max_length``; a chat template that refuses or rewrites the history; images
                without a processor, that cannot be read, or that are not files; another number of image placeholders
                than images.
        """
        self._ids.forget()
        builder = ColumnBuilder(images=self.images is not None, contexts=self.max_exchanges is not None)
        plans = [_located(self._plan, (trajectory,), where, i) for i, trajectory in enumerate(trajectories)]
        self._ids.encode(segment for plan in plans for context in plan for segment in context.segments)
        for i, (trajectory, plan) in enumerate(zip(trajectories, plans, strict=True)):
            to_go = self.returns.logged(trajectory.turns) if self.returns is not None else []
            stretches = []
            for number, context in enumerate(plan, 1):
                known = to_go if self.max_exchanges is None else to_go[:number]
                turns, pieces = _located(self._fit, (context, True, known), where, i)
                learnt = [segment.kind == "agent" for segment, _ in pieces]
                if self.max_exchanges is not None:  # what was said before is learnt in the contexts before
                    learnt = _last_alone(learnt, context.open_end)
                stretches.append(ReadTurns(turns, pieces, learnt))
            builder.add(trajectory, stretches)
        return builder.columns()

    def prompt(self, trajectory: Trajectory, reply_tokens: int = 0, target_return: float | None = None) -> list[int]:
        """The ids that a model continues with the agent's next turn: those of :meth:`read`."""
        return self.read(trajectory, reply_tokens, target_return).input_ids

    def read(self, trajectory: Trajectory, reply_tokens: int = 0, target_return: float | None = None) -> Prompt:
        """A history as the model reads it that continues it with the agent's next turn.

        Args:
            trajectory: a history in which the agent is to speak next; ``ended`` is not read, and rewards only with
                return tokens.
            reply_tokens: room to leave below ``max_length`` for the reply. With the reply's true length the prompt of a
                row's last agent turn is exactly what precedes that turn in training, truncation included. Where the
                newest exchange leaves less room it stands alone, with what room there is.
            target_return: with return tokens, what the whole episode is to return
                (:meth:`~qsft.data.return_tokens.ReturnTokens.wanted`); ``None``: the best that the data has seen.

        A policy may say what no training row holds, and the episode goes on: of what :meth:`batch` refuses, a prompt
        accepts replies with unknown tokens or an early end of turn, and replies that the chat template rewrites.

        Raises:
            DataError: an empty history, or anything else that :meth:`batch` refuses.
            ConfigError: a target return without return tokens, or one that the data has not seen.
        """
        if target_return is not None and self.returns is None:
            raise ConfigError("target_return: only a policy trained with return tokens can be asked for a return")
        self._ids.forget()
        history = trajectory.turns if self.images is None else self.images.without_strays(trajectory.turns)
        to_go = self.returns.wanted(history, target_return) if self.returns is not None else []
        turns = newest_exchanges(history, self.max_exchanges)
        self._check_images(turns)
        context = _Context(turns, True, self._segments(turns, True, training=False))
        self._ids.encode(context.segments)
        shown, pieces = self._fit(context, False, to_go, reply_tokens)
        ids: list[int] = []
        prefix: int | None = None
        for segment, piece in pieces:
            if segment.kind == "agent" and prefix is None:
                prefix = len(ids)
            ids += piece.tolist()
        if not ids:
            raise DataError("the history is empty; begin with an environment turn, or use a tokenizer with a bos token")
        images = tuple(image for turn in shown for image in turn.images)
        return Prompt(ids, len(ids) if prefix is None else prefix, images)

    def reply(self, trajectory: Trajectory, text: str) -> list[int]:
        """The ids of a candidate reply to a history, its end of turn included.

        Behind the :meth:`prompt` of the same history they are what training would hold.

        Raises:
            DataError: a reply, or a history, that training would refuse.
        """
        self._ids.forget()
        if self.images is not None and self.images.placeholder in text:
            raise DataError(f"the reply holds an image placeholder ({self.images.placeholder}); take it out")
        said = self._format.segments([*trajectory.turns, Turn(AGENT_ROLE, text)], open_end=False)[-1]
        self._ids.encode([said])
        return self._ids.lookup([said], training=True)[0][1].tolist()

    def action_text(self, generated_ids: Iterable[int]) -> str:
        """The text of the agent's turn that a model generated after a prompt; what to put into a :class:`Turn`.

        Ids after the first end-of-turn token are padding and not read. In the text format a newline that ends the turn
        belongs to the text, and a reply that was cut off before any end of turn gets one.
        """
        body: list[int] = []
        end: int | None = None
        for token in generated_ids:
            if token in self._end_ids:
                end = int(token)
                break
            body.append(int(token))
        return self._format.join_reply(self._codec.decode(body, self._format.after["agent"]), end)

    def to_dict(self) -> dict[str, Any]:
        """The settings, as JSON can hold them; tokenizer or processor is saved by its own ``save_pretrained``."""
        settings = {
            "format": self.format,
            "max_length": self.max_length,
            "end_of_turn": list(self._format.end_of_turn),
            "bos": self._format.bos,
        }
        if self.max_exchanges is not None:
            settings["max_exchanges"] = self.max_exchanges
        return settings if self.returns is None else {**settings, "return_levels": self.returns.levels.tolist()}

    @classmethod
    def from_dict(
        cls, tokenizer: PreTrainedTokenizerBase | ProcessorMixin, settings: dict[str, Any]
    ) -> TrajectoryTokenizer:
        """Rebuilds what :meth:`to_dict` described.

        Raises:
            ConfigError: settings of another version, or that do not fit the tokenizer.
        """
        unknown = set(settings) - {"format", "max_length", "end_of_turn", "bos", "return_levels", "max_exchanges"}
        if unknown:
            raise ConfigError(f"tokenisation settings: unknown {', '.join(sorted(unknown))}; remove what is misspelt")
        return cls(tokenizer, **settings)

    def fingerprint(self) -> str:
        """A hash of everything that decides the ids: settings, vocabulary, chat template and processor."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is not None:
            state = json.loads(backend.to_str())
            state["padding"] = state["truncation"] = None  # Set by unrelated calls; no part of the vocabulary.
        else:
            state = [sorted(self.tokenizer.get_vocab().items()), sorted(self.tokenizer.get_added_vocab().items())]
        template = getattr(self.processor, "chat_template", None) or self.tokenizer.chat_template
        described = [self.to_dict(), state, template, self.tokenizer.special_tokens_map]
        if self.images is not None:
            described.append(self.images.fingerprint())
        return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()[:32]

    def _plan(self, trajectory: Trajectory) -> list[_Context]:
        """The contexts of a row, without ``max_exchanges`` a single one."""
        turns = trajectory.turns
        if trajectory.ended is None:
            raise DataError("the episode has not ended; set ended to terminated or truncated")
        self._check_images(turns)
        last = -1
        for i, turn in enumerate(turns):
            if turn.is_agent:
                if turn.reward is None:
                    raise DataError(f"turn {i + 1}: its reward is not known; give one to every turn of the agent")
                last = i
        if last < 0:
            raise DataError("the agent has no turn; drop the episode")
        open_end = trajectory.ended == "truncated" and last < len(turns) - 1
        if not open_end:
            turns = turns[: last + 1]
        if any(isinstance(image, bytes) for turn in turns for image in turn.images):
            raise DataError("has pictures in memory; write them to files (qsft collect does) and give their paths")
        ends = [len(turns)]
        if self.max_exchanges is not None:
            ends = [i for i, turn in enumerate(turns, 1) if turn.is_agent] + ends[: int(open_end)]
        contexts: list[_Context] = []
        for end in ends:
            shown, open_here = newest_exchanges(turns[:end], self.max_exchanges), open_end and end == len(turns)
            segments = self._segments(shown, open_here, training=True, check=True)
            contexts.append(_Context(shown, open_here, segments))
        return contexts

    def _segments(self, turns: Sequence[Turn], open_end: bool, training: bool, check: bool = False) -> list[Segment]:
        segments = self._format.segments(turns, open_end, training)
        return segments if self.images is None else self.images.expand(segments, turns, check)

    def _check_images(self, turns: Sequence[Turn]) -> None:
        for number, turn in enumerate(turns, 1):
            if self.images is not None:
                try:
                    self.images.placeholders(turn)
                except DataError as error:
                    raise DataError(f"turn {number}: {error}") from None
            elif turn.images:
                raise DataError(
                    f"turn {number}: has images, and a tokenizer reads text only; give a vision-language model and its "
                    "processor, or drop them"
                )

    def _fit(
        self, context: _Context, training: bool, to_go: Sequence[float], room: int = 0
    ) -> tuple[Sequence[Turn], list[tuple[Segment, np.ndarray]]]:
        """The newest whole exchanges that fit into ``max_length``, and their ids, return tokens included.

        ``room`` is left below it for a reply; of a token where the newest exchange alone leaves no more.
        """
        turns, open_end, segments = context.turns, context.open_end, context.segments
        pieces = self._pieces(segments, training, to_go)
        size = _size(pieces)
        if self.max_length is not None and size > self.max_length - room:
            header, *cuts = exchange_starts(turns)
            if training and self.max_exchanges is None:  # the row's last turn to learn from stays
                newest = max(i for i, turn in enumerate(turns) if turn.is_agent)
                cuts = [cut for cut in cuts if cut <= newest]
            low, high = 0, len(cuts)
            shorter: Sequence[Turn] = turns
            kept: tuple[Sequence[Turn], list[tuple[Segment, np.ndarray]]] | None = None
            while low < high:
                middle = (low + high) // 2
                shorter = [*turns[:header], *turns[cuts[middle] :]]
                segments = self._segments(shorter, open_end, training)
                self._ids.encode(segments)
                pieces = self._pieces(segments, training, to_go)
                if _size(pieces) <= self.max_length - room:
                    kept, high = (shorter, pieces), middle
                else:
                    size, low = _size(pieces), middle + 1
            most = self.max_length - min(room, 1)
            if kept is None and size > most:
                raise DataError(
                    f"its last exchange alone has {size} tokens, {most} are allowed; raise max_length or shorten the turns"
                )
            # what was tried last is the newest exchange alone
            turns, pieces = (shorter, pieces) if kept is None else kept
        if training and next(segment for segment, piece in pieces if len(piece)).kind == "agent":
            raise DataError(
                "nothing stands before the agent's first token; "
                "begin with an environment turn, or use a tokenizer with a bos token"
            )
        return turns, pieces

    def _pieces(
        self, segments: list[Segment], training: bool, to_go: Sequence[float]
    ) -> list[tuple[Segment, np.ndarray]]:
        pieces = self._ids.lookup(segments, training)
        if self._format.prefix_ids:
            pieces = [self._prefix, *pieces]
        return pieces if self.returns is None else self.returns.insert(pieces, to_go, open_end=not training)


def _last_alone(agents: list[bool], open_end: bool) -> list[bool]:
    """Of the agent's segments in a context that of the turn which it ends with, if it ends with one."""
    last = -1 if open_end else max(i for i, agent in enumerate(agents) if agent)
    return [i == last for i in range(len(agents))]


def _located(
    function: Callable[..., Any], arguments: tuple[Any, ...], where: Callable[[int], str] | None, i: int
) -> Any:
    try:
        return function(*arguments)
    except DataError as error:
        raise error if where is None else DataError(f"{where(i)}: {error}") from None


def _size(pieces: Iterable[tuple[Segment, np.ndarray]]) -> int:
    return sum(len(piece) for _, piece in pieces)
