"""The token ids of segments, remembered: games say the same few things over and over."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

import numpy as np

from qsft.data.chat_format import ChatFormat
from qsft.data.codec import Codec, Segment
from qsft.data.text_format import TextFormat
from qsft.errors import DataError

# In characters, an entry counting as 50 more: at most about 20 MB. Long texts hardly ever come back.
_CACHE_SIZE = 2_000_000
_CACHE_ENTRY = 50
_CACHE_LONGEST = 1024
# Distinct replies that are decoded again; a tokenizer that loses something does so from the start.
_PROVED_REPLIES = 32


class SegmentIds:
    """Encodes many segments at once and finds the ones that no training row may hold."""

    def __init__(self, codec: Codec, format: ChatFormat | TextFormat) -> None:
        self._codec = codec
        self._format = format
        self._end_ids = set(format.end_of_turn.values())
        self._unknown = codec.tokenizer.unk_token_id
        self._cache: dict[Segment, np.ndarray] = {}
        self._refused: dict[Segment, str] = {}
        self._size = 0
        self._to_prove = _PROVED_REPLIES

    def forget(self) -> None:
        """Keeps memory flat; to be called between two batches.

        When the cache is full, long texts leave it, and then all of it. What was refused is looked at anew.
        """
        for segment in self._refused:
            if self._cache.pop(segment, None) is not None:
                self._size -= len(segment.text) + _CACHE_ENTRY
        self._refused.clear()
        if self._size > _CACHE_SIZE:
            self._cache = {segment: ids for segment, ids in self._cache.items() if len(segment.text) <= _CACHE_LONGEST}
            self._size = sum(len(segment.text) + _CACHE_ENTRY for segment in self._cache)
            if self._size > _CACHE_SIZE // 2:
                self._cache.clear()
                self._size = 0

    def encode(self, segments: Iterable[Segment]) -> None:
        """Encodes what is not known yet, for :meth:`lookup`."""
        missing: dict[str, dict[Segment, None]] = {"start": {}, "environment": {}, "agent": {}}
        for segment in segments:
            if segment not in self._cache:
                missing[segment.kind][segment] = None
        for new in (list(missing["start"]), list(missing["environment"])):
            if new:
                encoded = self._codec.encode([segment.text for segment in new], self._format.after[new[0].kind])
                for segment, ids in zip(new, encoded, strict=True):
                    self._remember(segment, ids)
        self._encode_replies(list(missing["agent"]))

    def lookup(self, segments: list[Segment], training: bool) -> list[tuple[Segment, np.ndarray]]:
        """The segments, each with its ids, int32.

        Args:
            training: refuse replies that would teach something else than what the agent said.

        Raises:
            DataError: naming the first segment that is refused, and why.
        """
        if self._refused:
            for segment in segments:
                if segment in self._refused and (training or segment not in self._cache):
                    raise DataError(self._refused[segment])
        return [(segment, self._cache[segment]) for segment in segments]

    def _encode_replies(self, segments: list[Segment]) -> None:
        split: list[tuple[Segment, str, int]] = []
        for segment in segments:
            try:
                split.append((segment, *self._format.split_reply(segment.text)))
            except DataError as error:
                self._refused[segment] = str(error)
        encoded = self._codec.encode([body for _, body, _ in split], self._format.after["agent"])
        for (segment, body, end), ids in zip(split, encoded, strict=True):
            self._remember(segment, [*ids, end])
            problem = self._problem(body, ids)
            if problem is not None:
                self._refused[segment] = problem

    def _problem(self, body: str, ids: list[int]) -> str | None:
        """What is wrong with the ids of a reply without its end-of-turn token."""
        if not self._end_ids.isdisjoint(ids):
            early = next(text for text, token in self._format.end_of_turn.items() if token in ids)
            return (
                f"the agent's text {body[:40]!r} holds the end of turn {early!r} before its end; "
                "take it out, or give another end_of_turn"
            )
        if self._unknown is not None and self._unknown in ids:
            return f"the tokenizer has no tokens for the agent's text {body[:40]!r}; use one that has"
        if self._to_prove:
            self._to_prove -= 1
            decoded = self._codec.decode(ids, self._format.after["agent"])
            if unicodedata.normalize("NFKC", decoded) != unicodedata.normalize("NFKC", body):
                return (
                    f"the tokenizer makes {decoded[:40]!r} of the agent's text {body[:40]!r}, which no policy could "
                    "then say; give the tokenizer a decoder, or use another"
                )
        return None

    def _remember(self, segment: Segment, ids: list[int]) -> None:
        self._cache[segment] = np.array(ids, np.int32)
        self._size += len(segment.text) + _CACHE_ENTRY
