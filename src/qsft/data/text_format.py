"""The text format: an episode is its turns' texts, one after the other. Made for games."""

from __future__ import annotations

from collections.abc import Sequence

from qsft.data.codec import Codec, Kind, Segment
from qsft.data.images import ImageInputs
from qsft.data.trajectory import Turn
from qsft.errors import ConfigError, DataError

_NEWLINE = "\n"
_PROBES = ("a", "Hello", "yes 1")


class TextFormat:
    """Plain concatenation.

    A turn of the agent ends with one of ``end_of_turn``. A special token among these (such as eos) belongs to no text:
    it is added where a turn ends with none of the others.

    Args:
        end_of_turn: texts that are one token each. ``None``: the newline, and the tokenizer's eos.
        bos: begin with the tokenizer's bos token; ``None``: if it has one.
        images: how images are written; they stand before their turn's text unless that says where.
    """

    name = "text"

    def __init__(
        self, codec: Codec, end_of_turn: Sequence[str] | None, bos: bool | None, images: ImageInputs | None = None
    ) -> None:
        tokenizer = codec.tokenizer
        if bos and tokenizer.bos_token_id is None:
            raise ConfigError("bos: the tokenizer has no bos token; set one, or leave bos out")
        self.bos = tokenizer.bos_token_id is not None if bos is None else bos
        self._images = images
        self._inner_bos = tokenizer.bos_token if self.bos and images is not None and images.bos_behind else None
        self.prefix_ids = [tokenizer.bos_token_id] if self.bos and self._inner_bos is None else []
        after = _context(codec)
        self.after: dict[Kind, str] = {"start": after, "environment": after, "agent": after}
        self.end_of_turn = _ends(codec, end_of_turn, after)
        special = set(tokenizer.all_special_ids)
        unseen = {text for text, token in self.end_of_turn.items() if token in special and text == text.strip()}
        self._added = next((token for text, token in self.end_of_turn.items() if text in unseen), None)
        self._written = {token: text for text, token in self.end_of_turn.items() if text not in unseen}
        self._lengths = sorted({len(text) for text in self.end_of_turn}, reverse=True)

    def segments(self, turns: Sequence[Turn], open_end: bool, training: bool = True) -> list[Segment]:
        """One segment a turn. Whether the agent is to speak next, and why this is asked, makes no difference here."""
        segments = [Segment("agent" if turn.is_agent else "environment", self._shown(turn)) for turn in turns]
        if self._inner_bos is not None and segments and segments[0].kind == "environment":
            assert self._images is not None
            before, placeholder, rest = segments[0].text.rpartition(self._images.placeholder)
            segments[0] = Segment("environment", f"{before}{placeholder}{self._inner_bos}{rest}")
        return segments

    def _shown(self, turn: Turn) -> str:
        if self._images is None:
            return turn.text
        return self._images.placeholder * self._images.placeholders(turn) + turn.text

    def split_reply(self, text: str) -> tuple[str, int]:
        """The text of an agent turn before its end-of-turn token, and that token."""
        for length in self._lengths:
            token = self.end_of_turn.get(text[-length:])
            if token is not None:
                return text[:-length], token
        if self._added is None:
            raise DataError(
                f"the agent's text {text[-20:]!r} does not end with an end of turn "
                f"({' or '.join(map(repr, list(self.end_of_turn)[:3]))}); end it so, or add eos to end_of_turn"
            )
        return text, self._added

    def join_reply(self, body: str, token: int | None) -> str:
        """Inverse of :meth:`split_reply`. A reply that was cut off (no end-of-turn token) is closed with a newline."""
        if token is None:
            return body + next(iter(self._written.values()), "")
        return body + self._written.get(token, "")


def _context(codec: Codec) -> str:
    """A text to encode turns behind, for a tokenizer that would put a space before each."""
    newline = codec.encode([_NEWLINE])[0]
    joint = codec.encode([_NEWLINE + probe for probe in _PROBES])
    alone = codec.encode(_PROBES)
    return "" if all(whole == newline + ids for whole, ids in zip(joint, alone, strict=True)) else _NEWLINE


def _ends(codec: Codec, wanted: Sequence[str] | None, after: str) -> dict[str, int]:
    eos = codec.tokenizer.eos_token
    texts = [_NEWLINE, *([eos] if eos is not None else [])] if wanted is None else wanted
    found = {text: codec.single(text, after) for text in texts}
    if wanted is not None and None in found.values():
        missing = next(text for text, token in found.items() if token is None)
        raise ConfigError(f"end_of_turn: {missing!r} is not one token of the tokenizer; add it to the vocabulary")
    ends = {text: token for text, token in found.items() if token is not None}
    if not ends:
        raise ConfigError(
            "the tokenizer has no usable end of turn (neither a newline token nor eos); "
            "set its eos_token, or give end_of_turn"
        )
    return ends
