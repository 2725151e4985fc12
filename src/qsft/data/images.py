"""Images of a trajectory on their way into a model: how many tokens each takes, and the tensors that it reads.

A vision-language model's *processor* writes an image into the text as a run of image tokens (with separators, for some)
in the place of one placeholder. Which tokens depends on the image's size alone, so that a trajectory is tokenised with
the headers of its images, and pixels are read when a batch is made.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qsft.data.codec import Codec, Segment
from qsft.data.pictures import picture_size, pillow, read_picture
from qsft.data.trajectory import Turn
from qsft.errors import ConfigError, DataError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

# What a processor returns for every token of the text; the rest belongs to the images.
_OF_TEXT = ("input_ids", "attention_mask", "labels")
_TYPES = "token_type_ids"
# Sizes (height, width) whose expansions tell two processors apart.
_PROBES = ((64, 64), (300, 300), (480, 640))


class ImageInputs:
    """What a processor does with images, for any processor that is called as those of transformers are.

    Args:
        processor: has ``tokenizer`` and ``image_token`` (the placeholder of an image in a text), and
            ``processor(text=[...], images=[[...]], return_tensors=...)`` returns ``input_ids`` and the inputs of the
            images. How many tokens an image takes may depend on its size alone.

    Attributes:
        placeholder: text that stands for one image.
        bos_behind: the processor puts the bos token behind the images, not before them (PaliGemma).

    Raises:
        ConfigError: a processor that does not fit this description.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self._codec = Codec(processor.tokenizer)
        placeholder = getattr(processor, "image_token", None)
        if placeholder is None:
            raise ConfigError(f"{type(processor).__name__} has no image_token, the text that stands for an image")
        self.placeholder = str(placeholder)
        self._pattern = re.compile(re.escape(self.placeholder))
        self.token_ids = _image_token_ids(processor)
        self._expansions: dict[tuple[int, int], tuple[str, int]] = {}
        ids, tail, types = self._expand(_PROBES[0])
        self.bos_behind = bool(tail) and tail[0] == processor.tokenizer.bos_token_id
        # Types that also tell images from text mark images; types that do not tell what is read from what is said.
        self._types = {
            key: {token for token, kind in zip(ids, kinds, strict=True) if kind} for key, kinds in types.items()
        }

    def placeholders(self, turn: Turn) -> int:
        """How many placeholders are to be put before a turn's text: none where the text says where its images stand.

        Raises:
            DataError: the text has another number of placeholders than the turn has images.
        """
        written = len(self._pattern.findall(turn.text))
        if written and written != len(turn.images):
            raise DataError(
                f"the text has {written} image placeholders ({self.placeholder}) and the message {len(turn.images)} "
                "images; give as many, or take the placeholders out to show the images before the text"
            )
        if turn.images and turn.is_agent:
            raise DataError("the agent's message has images, which it cannot say; move them to the answer to it")
        return 0 if written else len(turn.images)

    def without_strays(self, turns: Sequence[Turn]) -> list[Turn]:
        """The turns without placeholders in texts that have no images: what a policy may write must not end a game."""
        return [
            turn
            if turn.images or self.placeholder not in turn.text
            else dataclasses.replace(turn, text=turn.text.replace(self.placeholder, ""))
            for turn in turns
        ]

    def expand(self, segments: Sequence[Segment], turns: Sequence[Turn], check: bool) -> list[Segment]:
        """The segments with the tokens of the turns' images, in order, instead of their placeholders.

        Args:
            check: also decode every image, so that a damaged one is found now.

        Raises:
            DataError: an image that cannot be read, or a format that does not show every image once.
        """
        sizes: list[tuple[int, int]] = []
        for number, turn in enumerate(turns, 1):
            for image in turn.images:
                try:
                    if check:
                        picture = read_picture(image)
                        sizes.append((picture.height, picture.width))
                    else:
                        sizes.append(picture_size(image))
                except DataError as error:
                    raise DataError(f"turn {number}: {error}") from None
        shown = sum(len(self._pattern.findall(segment.text)) for segment in segments)
        if shown != len(sizes):
            raise DataError(
                f"{shown} image placeholders ({self.placeholder}) for {len(sizes)} images once the turns are formatted; "
                "use a chat template that shows each image once, or format text"
            )
        if not sizes:
            return list(segments)
        waiting = iter(sizes)
        return [
            Segment(segment.kind, self._pattern.sub(lambda _: self._expansion(next(waiting))[0], segment.text))
            for segment in segments
        ]

    def _expansion(self, size: tuple[int, int]) -> tuple[str, int]:
        """What stands in a text for an image of ``(height, width)`` pixels, and how many image tokens it holds."""
        if size not in self._expansions:
            ids, _, _ = self._expand(size)
            text = self._codec.decode(ids)
            if self._codec.encode([text])[0] != ids:
                raise ConfigError(
                    f"{type(self.processor).__name__}: the tokenizer makes other tokens of {text[:40]!r} than those that "
                    "the processor puts for an image; make them special tokens"
                )
            self._expansions[size] = text, sum(token in self.token_ids for token in ids)
        return self._expansions[size]

    def inputs(
        self, ids: np.ndarray, prefixes: Sequence[int], images: Sequence[str | bytes]
    ) -> dict[str, torch.Tensor]:
        """All that a model reads beside ids and attention mask.

        Args:
            ids: ``[B, T]``, padded.
            prefixes: index of the agent's first token in each row, or the row's end.
            images: of all rows, in order.

        Returns:
            what the processor makes of the images (``pixel_values`` and the like), and for each token its types
            ``[B, T]`` where the processor gives such. Without images the types alone.

        Raises:
            DataError: an image that cannot be read, or whose size changed since the ids were made.
        """
        import torch

        found: dict[str, torch.Tensor] = {}
        if images:
            pictures = [read_picture(image) for image in images]
            expected = sum(self._expansion((picture.height, picture.width))[1] for picture in pictures)
            if np.isin(ids, self.token_ids).sum() != expected:
                raise DataError(
                    f"{images[0] if isinstance(images[0], str) else 'a picture'} or one that is read with it has "
                    "another size than when the data was tokenised; delete the cache of tokenised data"
                )
            made = self._call(pictures, return_tensors="pt")
            found = {
                key: value
                for key, value in made.items()
                if key not in _OF_TEXT and not key.endswith(_TYPES) and isinstance(value, torch.Tensor)
            }
        for key, marked in self._types.items():
            if marked:
                types = np.isin(ids, list(marked))
            else:
                types = np.arange(ids.shape[1])[None] >= np.asarray(prefixes)[:, None]
            found[key] = torch.from_numpy(types.astype(np.int64))
        return found

    @property
    def only_tokens(self) -> bool:
        """Whether images change nothing but what stands in their place, so that a text's beginning can be read before.

        Of processors with token types, other tokens may see an image that comes later, or positions depend on it.
        """
        return not self._types

    def places(self, ids: Sequence[int], images: Sequence[str | bytes]) -> list[tuple[int, int]]:
        """Where each image's tokens begin and end in the ids of a text: ``(first, end)``, what is between included."""
        found = np.flatnonzero(np.isin(np.asarray(ids), self.token_ids))
        counts = [self._expansion(picture_size(image))[1] for image in images]
        bounds = itertools.pairwise(itertools.accumulate(counts, initial=0))
        return [(int(found[first]), int(found[end - 1]) + 1) for first, end in bounds]

    def fingerprint(self) -> list[str]:
        """What tells this processor's tokens from those of others."""
        return [self.placeholder, str(self.bos_behind), *(self._expansion(size)[0] for size in _PROBES)]

    def _expand(self, size: tuple[int, int]) -> tuple[list[int], list[int], dict[str, list[int]]]:
        """The tokens of an image, what the processor puts behind the last image of a text, and the tokens' types.

        The tokens of one image are what a text of two images has more than a text of one.
        """
        image = pillow().new("RGB", (size[1], size[0]), (127, 127, 127))
        one, two = (self._call([image] * count) for count in (1, 2))
        first, second = list(one["input_ids"][0]), list(two["input_ids"][0])
        length = len(second) - len(first)
        ids = first[:length]
        if length < 1 or second != ids + first:
            raise ConfigError(
                f"{type(self.processor).__name__} does not put the same tokens for each image of a text; use a "
                "processor that does"
            )
        if "cross_attention_mask" in one:
            raise ConfigError(
                f"{type(self.processor).__name__}: its model reads images beside the text (cross-attention), not as "
                "tokens of it; use one whose images are tokens"
            )
        types = {key: list(one[key][0])[:length] for key in one if key.endswith(_TYPES)}
        return ids, first[length:], types

    def _call(self, images: Sequence[Image], **settings: Any) -> Any:
        return self.processor(
            text=[self.placeholder * len(images)], images=[list(images)], add_special_tokens=False, **settings
        )


def tokenizer_of(processor: Any) -> Any:
    """The tokenizer of a processor; a tokenizer itself is its own."""
    return getattr(processor, "tokenizer", processor)


def image_inputs(processor: Any) -> ImageInputs | None:
    """What a processor does with images; ``None`` for a tokenizer."""
    return None if tokenizer_of(processor) is processor else ImageInputs(processor)


def _image_token_ids(processor: Any) -> list[int]:
    """Ids of the tokens that a model replaces by image features."""
    ids = getattr(processor, "image_token_ids", None) or [getattr(processor, "image_token_id", None)]
    if None in ids:
        raise ConfigError(f"{type(processor).__name__} has no image_token_id, the token that image features replace")
    return [int(token) for token in ids]
