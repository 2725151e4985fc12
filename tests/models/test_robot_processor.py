"""The robot transformer's processor: images into the text and into tensors, saved and found again."""

import numpy as np
import pytest
import torch

from qsft.models import RobotProcessor, RobotTransformerConfig, robot_processor
from qsft.models.scratch import load_processor, word_level_tokenizer

pillow = pytest.importorskip("PIL.Image")


@pytest.fixture
def processor():
    return robot_processor(word_level_tokenizer(["a0", "a1", "push"]), image_size=16, image_tokens=3)


def test_a_text_with_images(processor):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    images = [pillow.fromarray(pixels), pillow.fromarray(pixels).resize((40, 30))]
    text = "<image>push\na1 a0\n<image>push\n"
    read = processor(text=[text], images=[images], return_tensors="pt", add_special_tokens=False)
    image = processor.image_token_id
    assert (read["input_ids"] == image).sum() == 6
    assert read["input_ids"][0, :3].tolist() == [image] * 3
    assert read["pixel_values"].shape == (2, 3, 16, 16)
    torch.testing.assert_close(read["pixel_values"][0], torch.tensor(pixels).permute(2, 0, 1) / 127.5 - 1)


def test_saved_and_found(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    RobotTransformerConfig().save_pretrained(tmp_path)
    again = load_processor(tmp_path)
    assert isinstance(again, RobotProcessor)
    assert (again.image_tokens, again.image_token_id) == (3, processor.image_token_id)


def test_without_images_there_is_a_tokenizer(tmp_path):
    tokenizer = word_level_tokenizer(["a0", "a1"])
    tokenizer.save_pretrained(tmp_path)
    RobotTransformerConfig().save_pretrained(tmp_path)
    assert load_processor(tmp_path).get_vocab() == tokenizer.get_vocab()
