"""The naive definitions of `tests.training.naive`, which know ids alone, for a model that sees the images of one row."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from tests.vision import families


class Seeing:
    """Called with the first tokens of a row as a language model is; shows the whole model those images' pixels.

    Every call is one forward pass of the model with its logits, on one row without padding, with what the processor
    itself makes of the images among these tokens.
    """

    def __init__(self, model: Any, family: str, row: dict[str, Any]) -> None:
        self.model, self.family, self.row = model, family, row
        self.processor = families.processor(family)
        mark = self.processor.image_token
        self.counts = []
        for path in row["images"]:
            made = self.processor(text=[mark], images=[[Image.open(path)]], add_special_tokens=False)["input_ids"][0]
            self.counts.append(list(made).count(self.processor.image_token_id))
        self.first = row["agent_mask"].index(1)

    def __call__(self, input_ids: torch.Tensor, use_cache: bool) -> Any:
        ids = input_ids[0]
        left, seen = int((ids == self.processor.image_token_id).sum()), 0
        while left:
            left -= self.counts[seen]
            seen += 1
        extra: dict[str, Any] = {}
        if seen:
            pictures = [Image.open(path) for path in self.row["images"][:seen]]
            made = self.processor(
                text=[self.processor.image_token * seen],
                images=[pictures],
                add_special_tokens=False,
                return_tensors="pt",
            )
            extra = {
                key: made[key] for key in ("pixel_values", "pixel_attention_mask", "image_grid_thw") if key in made
            }
        if self.family == "paligemma":
            extra["token_type_ids"] = (torch.arange(len(ids)) >= self.first).long()[None]
        if self.family.startswith("qwen"):
            extra["mm_token_type_ids"] = (input_ids == self.processor.image_token_id).long()
        return self.model(input_ids=input_ids, use_cache=use_cache, **extra)
