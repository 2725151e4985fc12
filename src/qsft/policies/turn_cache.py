"""Keys and values kept from turn to turn, so that a long episode is not read again at every turn."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from qsft.models.policy_model import PairCache

#: tokens of room at least: a reply and some of what is read next
_ROOM = 64


class TurnCache:
    """What ``generate`` left in its cache, for the next turn of the same episodes.

    Episodes of a batch end and others begin, and what is known of their histories differs. So a batch has two parts, each
    padded on the left: what the cache holds of each row, then what is to be read; between the two stands padding too,
    which no token sees. A history that is no continuation (cut from the left, another episode) is read whole: the
    result is that of no cache, but for the last digits of floating point.

    Prompts are lists of what can be compared: token ids, and in the place of an image's tokens the image itself.
    """

    def __init__(self) -> None:
        self._cache: Cache | None = None
        self._rows: dict[Hashable, tuple[int, Tensor, list[Any]]] = {}  # row of the cache, its columns, their tokens

    def continued(
        self,
        keys: Sequence[Hashable],
        prompts: Sequence[Sequence[Any]],
        wholes: Sequence[Sequence[tuple[int, int]]],
    ) -> tuple[Cache | None, list[int]]:
        """The cache that ``generate`` goes on from.

        Args:
            keys: one for each row that names its episode; what a key stood for before is checked against the tokens.
            prompts: [B] lists, not empty.
            wholes: [B] lists of ``(first, end)``: what can be read only as a whole, as the tokens of an image.

        Returns:
            Keys and values of as many tokens of each prompt as the second says, [B], padded on the left; ``None`` where
            nothing can be kept.
        """
        cache, self._cache = self._cache, None
        unknown: tuple[int, Tensor, list[Any]] = (0, torch.empty(0, dtype=torch.long), [])
        found = [self._rows.get(key, unknown) for key in keys]
        kept = [_common(tokens, prompt[:-1]) for (_, _, tokens), prompt in zip(found, prompts, strict=True)]
        for row, spans in enumerate(wholes):
            kept[row] = min([kept[row], *(first for first, end in spans if first < kept[row] < end)])
        width = max(kept)
        if cache is None or width == 0:
            return None, [0] * len(keys)

        def rearranged(old: Tensor, new: Tensor) -> None:
            for row, ((index, columns, _), length) in enumerate(zip(found, kept, strict=True)):
                new[row, :, : width - length] = 0
                new[row, :, width - length :] = old[index].index_select(1, columns[:length].to(old.device))

        def laid_out(old: Cache) -> DynamicCache:
            new = DynamicCache()
            new.layers = [GrowingLayer.laid_out(layer, len(keys), width, rearranged) for layer in old.layers]
            return new

        if isinstance(cache, PairCache):
            return PairCache(laid_out(cache.likelihood), laid_out(cache.behaviour)), kept
        return laid_out(cache), kept

    def keep(
        self,
        keys: Sequence[Hashable],
        prompts: Sequence[Sequence[Any]],
        attention_mask: Tensor,
        output: Tensor,
        cache: Cache | None,
    ) -> None:
        """Remember what was read.

        Args:
            keys, prompts: as in :meth:`continued`.
            attention_mask: ``[B, W]``, 1 where the prompts' tokens stand.
            output: ``[B, T]``, ids of these columns and of what was generated after them.
            cache: as ``generate`` returned it; only one that keeps every position can be used again.
        """
        self._cache, self._rows = None, {}
        if cache is None or not all(type(layer) in (DynamicLayer, GrowingLayer) for layer in cache.layers):
            return
        self._cache = cache
        width, seen = attention_mask.shape[1], cache.get_seq_length()  # the token drawn last was never read
        new = torch.arange(width, seen)
        for index, (key, prompt) in enumerate(zip(keys, prompts, strict=True)):
            columns = torch.cat([attention_mask[index].cpu().nonzero()[:, 0], new])
            self._rows[key] = (index, columns, [*prompt, *output[index, width:seen].tolist()])


class GrowingLayer(DynamicLayer):
    """Keys and values with room behind them: one token more is written there, where a plain layer copies all of them."""

    def __init__(self) -> None:
        super().__init__()
        self._stores: dict[str, Tensor] = {}

    def update(
        self, key_states: Tensor, value_states: Tensor, *arguments: Any, **settings: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys = self._longer("keys", self.keys, key_states)
        self.values = self._longer("values", self.values, value_states)
        return self.keys, self.values

    @classmethod
    def laid_out(cls, layer: object, rows: int, length: int, fill: Callable[[Tensor, Tensor], None]) -> GrowingLayer:
        """A layer of ``rows`` rows and ``length`` positions made of another, which is emptied.

        Args:
            fill: is given keys or values of the old layer, and those of the new one to write all of.
        """
        assert isinstance(layer, DynamicLayer) and layer.keys is not None and layer.values is not None
        new = cls()
        new.lazy_initialization(layer.keys, layer.values)
        for name in ("keys", "values"):
            old = getattr(layer, name)
            store = old.new_empty(rows, old.shape[1], _with_room(length), old.shape[3])
            fill(old, store[:, :, :length])
            new._stores[name] = store
            setattr(new, name, store[:, :, :length])
            setattr(layer, name, None)  # what is copied is freed at once
            if isinstance(layer, GrowingLayer):
                layer._stores.pop(name, None)
        return new

    def _longer(self, name: str, held: Tensor | None, new: Tensor) -> Tensor:
        length = held.shape[-2] if held is not None and held.numel() else 0
        whole = length + new.shape[-2]
        store = self._stores.get(name)
        # what somebody else put in place of our view is not in the store
        kept = store is not None and held is not None and length and held.data_ptr() == store.data_ptr()
        if not kept or store is None or store.shape[-2] < whole:
            store = new.new_empty(*new.shape[:2], _with_room(whole), new.shape[3])
            if length:
                assert held is not None
                store[:, :, :length] = held
            self._stores[name] = store
        store[:, :, length:whole] = new
        return store[:, :, :whole]


def _with_room(length: int) -> int:
    return length + max(_ROOM, length // 4)


def _common(a: Sequence[Any], b: Sequence[Any]) -> int:
    """Length of the common beginning."""
    shorter = min(len(a), len(b))
    if list(a[:shorter]) == list(b[:shorter]):
        return shorter
    return next(i for i in range(shorter) if a[i] != b[i])
