"""Stretches of text to token ids and back, whatever the tokenizer does at the start of a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: ``"start"``: what the sequence begins with. ``"environment"``: what is shown between two turns of the agent.
#: ``"agent"``: one turn of the agent.
Kind = Literal["start", "environment", "agent"]


class Segment(NamedTuple):
    """A stretch of a trajectory that is tokenised by itself, so that no token straddles a boundary of an agent turn."""

    kind: Kind
    text: str


class Codec:
    """Encodes a text as the continuation of another.

    Many SentencePiece tokenizers put a space before whatever they are given, and some special tokens swallow the
    whitespace behind them. ``after`` names the text that a stretch follows; its own tokens are taken off again.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    def encode(self, texts: Sequence[str], after: str = "") -> list[list[int]]:
        """Token ids of each text. Where a token would straddle ``after`` and the text, the text is encoded alone."""
        if not texts:
            return []
        if not after:
            return self._ids(list(texts))
        prefix = self._ids([after])[0]
        encoded = self._ids([after + text for text in texts])
        return [
            ids[len(prefix) :] if ids[: len(prefix)] == prefix else self._ids([text])[0]
            for ids, text in zip(encoded, texts, strict=True)
        ]

    def decode(self, ids: Sequence[int], after: str = "") -> str:
        """The text of ids that follow ``after``; special tokens are kept."""
        if not after:
            return self._text(list(ids))
        prefix = self._ids([after])[0]
        context = self._text(prefix)
        text = self._text(prefix + list(ids))
        return text[len(context) :] if text.startswith(context) else self._text(list(ids))

    def single(self, text: str, after: str = "") -> int | None:
        """The id of a text that is exactly one known token, else ``None``."""
        ids = self.encode([text], after)[0]
        if len(ids) != 1 or (ids[0] == self.tokenizer.unk_token_id and text != self.tokenizer.unk_token):
            return None
        return ids[0]

    def _ids(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer(
            texts, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
        )["input_ids"]

    def _text(self, ids: list[int]) -> str:
        text = self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text
