"""The chat format: an episode as the tokenizer's chat template writes it.

A template is a program; what it writes for a message may depend on all the others. Training on every turn of an
episode in one pass is right only if each turn is preceded by exactly what the template will show when the agent has
to choose that turn. So, for a history h and the agent's reply a, with P(h) the template's text including its
generation prompt::

    text(h, a) = P(h) + lead + a + end of turn         P(h + a + ...) begins with text(h, a)

(``lead`` is mostly nothing; it is what a template makes the agent say before its text, such as an empty thought.)
The second equation is verified for each sequence of roles by rendering it with marks in place of the contents, and that
no content is rewritten is verified for each episode. This needs no ``{% generation %}`` blocks; where a template has
them they must mark the same replies.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template

from qsft.data.codec import Codec, Kind, Segment
from qsft.data.images import ImageInputs
from qsft.data.trajectory import AGENT_ROLE, Turn
from qsft.errors import ConfigError, DataError

# A mark has a space on either side that no template writes by itself, to see whether the template trims contents.
_SPACE = "\u2003"
_MARK = _SPACE + "\ue000{}\ue001" + _SPACE
_MARKS = re.compile(f"({_SPACE}?)\ue000(\\d+)\ue001({_SPACE}?)")
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_MOST_SKELETONS = 4096


#: Role of a message, and how many images stand before its text.
_Shape = tuple[str, int]


class _Rewritten(DataError):
    """The history does not show what the agent said."""


@dataclass(frozen=True)
class _Skeleton:
    """What a template writes around the marked turns: one text more than there are ``marks``."""

    literals: tuple[str, ...]
    marks: tuple[int, ...]
    trims: tuple[tuple[bool, bool], ...]


class ChatFormat:
    """The tokenizer's chat template.

    Args:
        end_of_turn: the token that ends the agent's message, where the template's own is not a special token. ``None``:
            found in the template.
        template: ``None``: the tokenizer's own.
        images: how images are written; ``None``: the messages have none.

    Raises:
        ConfigError: the template ends the agent's messages with no special token, or cannot be cut into turns.
    """

    name = "chat"
    bos = None

    def __init__(
        self,
        codec: Codec,
        end_of_turn: Sequence[str] | None,
        template: str | None = None,
        images: ImageInputs | None = None,
    ) -> None:
        self._tokenizer = codec.tokenizer
        if template is None and self._tokenizer.chat_template is None:
            raise ConfigError("format chat: the tokenizer has no chat template; set one, or use format text")
        self._template = self._tokenizer.get_chat_template(template)
        self._images = images
        self._in_parts = images is not None and self._reads_parts(images.placeholder)
        self.prefix_ids: list[int] = []
        self._skeletons: dict[tuple[_Shape, ...], _Skeleton] = {}
        try:
            self._read_template(codec, end_of_turn)
        except DataError as error:
            raise ConfigError(str(error)) from None
        self._check_generation_blocks()
        self.after = self._contexts(codec)

    def segments(self, turns: Sequence[Turn], open_end: bool, training: bool = True) -> list[Segment]:
        """What stands between the agent's turns, and these.

        Args:
            turns: ends with the agent's turn, or with ``open_end`` anyhow.
            open_end: the agent is to speak next: the last segment ends with the generation prompt.
            training: refuse a history whose replies the template rewrites; else it is one segment, as rewritten (an
                episode must go on after a reply of a form that no training row has).

        Raises:
            DataError: the template refuses these turns or rewrites them.
        """
        history = turns if open_end else turns[:-1]
        text = self._render([self._message(self._shape(turn), turn.text) for turn in history])
        try:
            between, said = self._cut(history, text)
        except _Rewritten:
            if training:
                raise
            return [Segment("start", text)]
        segments: list[Segment] = []
        for i, stretch in enumerate(between):
            segments.append(Segment("environment" if i else "start", stretch))
            if i < len(said):
                segments.append(Segment("agent", said[i]))
        if not open_end:
            segments.append(Segment("agent", self._last_said(turns, between, said)))
        return segments

    def split_reply(self, text: str) -> tuple[str, int]:
        """All of an agent turn before its end-of-turn token, and that token."""
        return text + self._space, self._end_id

    def join_reply(self, body: str, token: int | None) -> str:
        """Inverse of :meth:`split_reply`."""
        return body.removeprefix(self._lead).removesuffix(self._space if token is not None else "")

    def _cut(self, history: Sequence[Turn], text: str) -> tuple[list[str], list[str]]:
        """Cuts the template's text for a history: what stands between the agent's turns, and what it said in each."""
        replies = [self._trim(turn.text) for turn in history if turn.is_agent]
        agents = [i for i, turn in enumerate(history) if turn.is_agent]
        between = self._strip(_fill(self._skeleton(tuple(self._shape(turn) for turn in history)), history))
        said, whole = self._said(text, between, replies)
        if not whole:
            # The template does something to the environment's contents (escapes them, for example): it may.
            marked = [
                self._message(self._shape(turn), _MARK.format(i) if turn.is_agent else turn.text)
                for i, turn in enumerate(history)
            ]
            between = self._strip(_parse(self._render(marked), agents, len(history)).literals)
            said, whole = self._said(text, between, replies)
        if not whole:
            raise _Rewritten(
                f"the chat template rewrites what the agent said in turn {agents[len(said)] + 1} "
                "(does it drop thoughts?); use a template that keeps it, change the data, or use format text"
            )
        return between, said

    def _strip(self, stretches: Sequence[str]) -> list[str]:
        """Takes the lead and the end of turn, which are the agent's, off what stands around the agent's texts."""
        stripped = []
        for i, stretch in enumerate(stretches):
            before_reply = i < len(stretches) - 1
            if (i and not stretch.startswith(self._tail)) or (before_reply and not stretch.endswith(self._lead)):
                raise DataError(
                    "the chat template does not begin or end all of the agent's messages alike; "
                    "use another template, or format text"
                )
            stop = len(stretch) - len(self._lead) if before_reply else len(stretch)
            stripped.append(stretch[len(self._tail) if i else 0 : stop])
        return stripped

    def _said(self, text: str, between: Sequence[str], replies: Sequence[str]) -> tuple[list[str], bool]:
        """What the agent said before each end of turn: a reply behind the lead, or alone if the lead is part of it.

        With it comes whether the text consists of these and of what stands between; where it does not, the list ends
        at the first reply that is not found.
        """
        at = len(between[0])
        said: list[str] = []
        if not text.startswith(between[0]):
            return said, False
        for reply, following in zip(replies, between[1:], strict=True):
            for candidate in (self._lead + reply, reply):
                if text.startswith(candidate + self._tail + following, at):
                    said.append(candidate)
                    at += len(candidate) + len(self._tail) + len(following)
                    break
            else:
                return said, False
        return said, at == len(text)

    def _last_said(self, turns: Sequence[Turn], between: Sequence[str], said: Sequence[str]) -> str:
        """What the agent says in the last turn: behind the lead, unless the template finds it in the reply."""
        reply = self._trim(turns[-1].text)
        if not self._lead.strip():
            return self._lead + reply
        text = self._render([self._message(self._shape(turn), turn.text) for turn in turns], generation_prompt=False)
        prompt = _weave(between, [part + self._tail for part in said])
        return reply if text.startswith(prompt + reply + self._tail) else self._lead + reply

    def _shape(self, turn: Turn) -> _Shape:
        return turn.role, 0 if self._images is None else self._images.placeholders(turn)

    def _message(self, shape: _Shape, text: str) -> dict[str, Any]:
        role, images = shape
        if self._in_parts:
            return {"role": role, "content": [*[{"type": "image"}] * images, {"type": "text", "text": text}]}
        return {"role": role, "content": self._images.placeholder * images + text if self._images else text}

    def _reads_parts(self, placeholder: str) -> bool:
        """Whether the template writes contents given as a list of parts; some expect text."""
        parts = [{"type": "image"}, {"type": "text", "text": _MARK.format(0)}]
        try:
            text = self._render([{"role": "user", "content": parts}])
        except (DataError, TypeError):  # a list where it expects text
            return False
        return len(_MARKS.findall(text)) == 1 and text.count(placeholder) == 1

    def _skeleton(self, shapes: tuple[_Shape, ...]) -> _Skeleton:
        """The template's text around the contents, after checking that each reply follows exactly its prompt."""
        if shapes in self._skeletons:
            return self._skeletons[shapes]
        if len(self._skeletons) >= _MOST_SKELETONS:
            self._skeletons.clear()
        agents = [i for i, (role, _) in enumerate(shapes) if role == AGENT_ROLE]
        shorter: _Skeleton | None = None
        for stop in (*agents, len(shapes)):
            skeleton = self._skeletons.get(shapes[:stop])
            if skeleton is None:
                skeleton = self._marked(shapes[:stop])
                if shorter is not None:
                    self._check_prefix(shorter, skeleton)
                self._skeletons[shapes[:stop]] = skeleton
            shorter = skeleton
        return self._skeletons[shapes]

    def _marked(self, shapes: tuple[_Shape, ...]) -> _Skeleton:
        if not shapes:
            raise DataError("nothing stands before the agent's first turn; put a user or system message first")
        messages = [self._message(shape, _MARK.format(i)) for i, shape in enumerate(shapes)]
        return _parse(self._render(messages), range(len(shapes)), len(shapes))

    def _check_prefix(self, shorter: _Skeleton, longer: _Skeleton) -> None:
        """The prompt of a turn must be what stands before that turn later on."""
        turn = len(shorter.marks)
        same = longer.literals[:turn] == shorter.literals[:-1] and longer.trims[:turn] == shorter.trims
        if not same or longer.literals[turn] != shorter.literals[-1] + self._lead or longer.trims[turn] != self._trims:
            raise DataError(
                f"the chat template writes the history before turn {turn + 1} in another way once the episode goes on; "
                "use a template that keeps what it wrote, or format text"
            )
        self._strip(longer.literals[turn : turn + 2])

    def _read_template(self, codec: Codec, end_of_turn: Sequence[str] | None) -> None:
        prompt = self._marked((("user", 0),))
        whole = self._marked((("user", 0), (AGENT_ROLE, 0), ("user", 0)))
        self._prompt_tail = prompt.literals[1]
        if not whole.literals[1].startswith(self._prompt_tail) or whole.literals[0] != prompt.literals[0]:
            raise ConfigError(
                "the chat template's generation prompt is not how it begins the agent's message; "
                "mend the template, or use format text"
            )
        self._lead = whole.literals[1].removeprefix(self._prompt_tail)
        self._trims = whole.trims[1]
        after = whole.literals[2]
        if end_of_turn is None:
            # A special token that only opens the next message would also stand here; at the end of a chat it does not.
            last = self._render(
                [self._message(("user", 0), "a"), self._message((AGENT_ROLE, 0), _MARK.format(0))], False
            )
            closing = _parse(last, [0], 1).literals[1]
            tokens = [str(token) for token in self._tokenizer.added_tokens_decoder.values()]
            tokens = [token for token in tokens if closing.lstrip().startswith(token) and token.strip()]
        else:
            tokens = list(end_of_turn)
        found = [(after.find(token), -len(token), token) for token in tokens]
        found = [(at, length, token) for at, length, token in found if at >= 0 and not after[:at].strip()]
        if not found:
            raise ConfigError(
                "no usable end of turn: the chat template ends the agent's message with "
                f"{'no special token' if end_of_turn is None else 'none of end_of_turn'}; "
                "give end_of_turn, or use format text"
            )
        at, _, token = min(found)
        self._space, self._tail = after[:at], after[: at + len(token)]
        end_id = codec.single(token)
        if end_id is None:
            end_id = codec.single(token, "\n")
        if end_id is None:
            raise ConfigError(f"end_of_turn: {token!r} is not one token of the tokenizer; add it to the vocabulary")
        self._end_id = end_id
        self.end_of_turn = {token: end_id}

    def _check_generation_blocks(self) -> None:
        if not _GENERATION.search(self._template):
            return
        roles = ("user", AGENT_ROLE, "user", AGENT_ROLE, "user")
        chat = [self._message((role, 0), _MARK.format(i)) for i, role in enumerate(roles)]
        variables: dict[str, Any] = dict(self._tokenizer.special_tokens_map)
        rendered: Any = render_jinja_template(
            conversations=[chat], chat_template=self._template, return_assistant_tokens_mask=True, **variables
        )
        (text,), (blocks,) = rendered
        inside = [int(mark[2]) for start, stop in blocks for mark in _MARKS.finditer(text[start:stop])]
        if inside != [i for i, role in enumerate(roles) if role == AGENT_ROLE]:
            raise ConfigError(
                "the chat template's {% generation %} blocks do not hold exactly the agent's messages; "
                "mend or remove them"
            )

    def _contexts(self, codec: Codec) -> dict[Kind, str]:
        """How to encode the stretches one by one so that the ids are those of the whole text."""
        end = next(iter(self.end_of_turn))
        texts = ("Hello there", "Good day", "And now", "Well")
        turns = [Turn(AGENT_ROLE if i % 2 else "user", text) for i, text in enumerate(texts)]
        segments = self.segments(turns, open_end=False)
        written = "".join(self.split_reply(text)[0] + end if kind == "agent" else text for kind, text in segments)
        whole = codec.encode([written])[0]
        alone: dict[Kind, str] = {"start": "", "environment": "", "agent": ""}
        behind: dict[Kind, str] = {"start": "", "environment": end, "agent": self._prompt_tail}
        for contexts in (alone, behind):
            ids: list[int] = []
            for kind, text in segments:
                stretch = self.split_reply(text)[0] if kind == "agent" else text
                ids += codec.encode([stretch], contexts[kind])[0]
                if kind == "agent":
                    ids.append(self._end_id)
            if ids == whole:
                return contexts
        raise ConfigError(
            "the tokenizer merges the chat template's text with the agent's across the turn's boundary "
            "(does the generation prompt end with a space?); mend the template, or use format text"
        )

    def _trim(self, text: str) -> str:
        return _trimmed(text, self._trims)

    def _render(self, messages: list[dict[str, Any]], generation_prompt: bool = True) -> str:
        try:
            text = self._tokenizer.apply_chat_template(
                messages, chat_template=self._template, tokenize=False, add_generation_prompt=generation_prompt
            )
        except jinja2.TemplateError as error:
            raise DataError(
                f"the chat template refuses these messages ({' '.join(str(error).split())}); "
                "change their roles, or use format text"
            ) from None
        assert isinstance(text, str)
        return text


def _parse(text: str, expected: Sequence[int], turns: int) -> _Skeleton:
    """Cut a rendered text at its marks, which must be the expected ones, each once and in order."""
    literals: list[str] = []
    marks: list[int] = []
    trims: list[tuple[bool, bool]] = []
    at = 0
    for mark in _MARKS.finditer(text):
        literals.append(sys.intern(text[at : mark.start()]))
        marks.append(int(mark[2]))
        trims.append((not mark[1], not mark[3]))
        at = mark.end()
    if marks != list(expected):
        turn = next((turn for turn, mark in zip(expected, marks, strict=False) if turn != mark), None)
        turn = expected[len(marks)] if turn is None and len(marks) < len(expected) else turn
        named = "a turn" if turn is None else f"turn {turn + 1} of {turns}"
        raise DataError(
            f"the chat template leaves out, repeats or moves {named}; "
            "change its role, or use another template or format text"
        )
    return _Skeleton((*literals, text[at:]), tuple(marks), tuple(trims))


def _fill(skeleton: _Skeleton, history: Sequence[Turn]) -> list[str]:
    """The skeleton's text with the environment's contents filled in, cut at the agent's."""
    stretches = [skeleton.literals[0]]
    for turn, trims, literal in zip(history, skeleton.trims, skeleton.literals[1:], strict=True):
        if turn.is_agent:
            stretches.append(literal)
        else:
            stretches[-1] += _trimmed(turn.text, trims) + literal
    return stretches


def _weave(stretches: Sequence[str], replies: Sequence[str]) -> str:
    return "".join(part for pair in zip(stretches, (*replies, ""), strict=True) for part in pair)


def _trimmed(text: str, trims: tuple[bool, bool]) -> str:
    text = text.lstrip() if trims[0] else text
    return text.rstrip() if trims[1] else text
