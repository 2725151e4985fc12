"""Texts with images, as the robot transformer reads them."""

from __future__ import annotations

from typing import Any

from transformers import AutoProcessor, AutoTokenizer, PreTrainedTokenizerBase
from transformers.processing_utils import ProcessorMixin
from transformers.utils import PROCESSOR_NAME, cached_file

from qsft.errors import CheckpointError
from qsft.models.robot_transformer import RobotTransformerConfig

IMAGE = "<image>"


class RobotProcessor(ProcessorMixin):
    """The processor of a robot transformer with images, called as those of vision-language models are.

    ``processor(text=["<image>push the button\\n"], images=[[picture]])``: each ``<image>`` becomes ``image_tokens`` image
    tokens, and all images together ``pixel_values``, [N, 3, H, W].

    Args:
        image_processor: of transformers, such as :func:`robot_image_processor` makes.
        tokenizer: has the special token ``<image>``.
        image_tokens: tokens of an image, the model's.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        image_tokens: int = 8,
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.image_token = IMAGE
        self.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE)
        self.image_tokens = image_tokens
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *arguments: Any, **settings: Any) -> Any:
        """The processor that was saved there; of a robot transformer without images its tokenizer, which is all it has."""
        saved = cached_file(pretrained_model_name_or_path, PROCESSOR_NAME, _raise_exceptions_for_missing_entries=False)
        if saved is None:
            return AutoTokenizer.from_pretrained(pretrained_model_name_or_path, *arguments, **settings)
        return super().from_pretrained(pretrained_model_name_or_path, *arguments, **settings)

    def replace_image_token(self, image_inputs: dict, image_idx: int, **kwargs: Any) -> str:
        return self.image_token * self.image_tokens


def robot_processor(
    tokenizer: PreTrainedTokenizerBase, image_size: int = 64, image_tokens: int = 8, backbone: str | None = None
) -> RobotProcessor:
    """A processor for images of any size, resized to ``image_size`` pixels a side; adds ``<image>`` to the tokenizer.

    Args:
        backbone: hub id or path of the pretrained backbone that the model begins with (``vision``): colours are
            normalised as it knows them; ``None``: to [-1, 1].

    Raises:
        CheckpointError: there is no image processor.
    """
    from transformers import AutoImageProcessor, ViTImageProcessorPil

    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    colours = {}
    if backbone is not None:
        try:
            known = AutoImageProcessor.from_pretrained(backbone)
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{backbone}: no image processor can be loaded from there ({' '.join(str(error).split()):.120}); give a "
                "backbone's hub id or folder."
            ) from error
        colours = {"image_mean": known.image_mean, "image_std": known.image_std}
    size = {"height": image_size, "width": image_size}
    return RobotProcessor(ViTImageProcessorPil(size=size, **colours), tokenizer, image_tokens=image_tokens)


AutoProcessor.register(RobotTransformerConfig, RobotProcessor)
