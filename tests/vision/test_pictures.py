"""Pictures of any format as a person would see them, and damaged ones."""

import io

import numpy as np
import pytest
from PIL import Image

from qsft.data.pictures import picture_size, png, read_picture
from qsft.errors import DataError

GREYS = np.arange(256, dtype=np.uint8).reshape(16, 16)


def saved(image, kind="PNG", **settings):
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def pixels(content):
    return np.asarray(read_picture(content))


def test_sixteen_bits_are_scaled_not_cut():
    found = pixels(saved(Image.fromarray(GREYS.astype(np.uint16) * 256 + 77)))
    assert np.array_equal(found, np.repeat(GREYS[..., None], 3, axis=2))


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_numbers_that_are_no_colours_are_refused(kind):
    with pytest.raises(
        DataError, match=r"cannot be read \(numbers of mode [IF] are no colours.* scale them to 8 bits\)"
    ):
        pixels(saved(Image.fromarray(GREYS.astype(kind)), "TIFF"))


def test_what_is_transparent_is_white():
    coloured = np.full((2, 3, 4), [200, 0, 100, 255], np.uint8)
    coloured[0, :, 3] = 0
    coloured[1, 0, 3] = 51  # a fifth
    found = pixels(saved(Image.fromarray(coloured)))
    assert found[0].tolist() == [[255] * 3] * 3
    assert found[1].tolist() == [[244, 204, 224], [200, 0, 100], [200, 0, 100]]
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), mode="P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    assert pixels(saved(palette, transparency=0)).tolist() == [[[255] * 3, [40, 50, 60]]]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_upright_and_their_header_tells_the_size(orientation, kind):
    picture = Image.new("RGB", (64, 32), "black")
    picture.paste("white", (0, 0, 16, 16))  # the corner that the camera saw above on the left
    tags = Image.Exif()
    tags[0x0112] = orientation
    content = saved(picture, kind, exif=tags)
    found = pixels(content)
    assert found.shape[:2] == picture_size(content) == ((32, 64) if orientation < 5 else (64, 32))
    bottom, right = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}[
        orientation
    ]
    corners = found[8::16, 8::16, 0] > 128
    assert corners.sum() == 1 and corners[-bottom, -right]


def test_the_size_is_known_without_the_pixels():
    content = png(np.zeros((5, 9, 3), np.uint8))
    assert picture_size(content[:60]) == picture_size(content) == (5, 9)
    with pytest.raises(DataError, match="a picture in memory: cannot be read"):
        picture_size(content[:23])


@pytest.mark.parametrize("mode", ["1", "P", "RGBA", "I;16"])
def test_the_size_in_a_png_is_that_of_its_pixels(mode):
    content = saved(Image.new(mode, (301, 70)), "PNG")
    assert picture_size(content) == pixels(content).shape[:2] == (70, 301)


def test_damage_anywhere_is_one_clear_error():
    """Each format raises errors of its own kind, among them SyntaxError and ValueError."""
    draw = np.random.default_rng(0)
    noise = Image.fromarray(draw.integers(0, 256, (40, 40, 3), dtype=np.uint8))
    refused = []
    for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"):
        whole = saved(noise, kind)
        for _ in range(60):
            content = bytearray(whole)
            for place in draw.integers(0, min(len(whole), 400), 8):
                content[place] = draw.integers(256)
            try:
                assert pixels(bytes(content)).shape[2] == 3
            except DataError as error:
                refused.append(str(error))
    assert len(refused) > 100
    assert all(error.startswith("a picture in memory: cannot be read (") and "\n" not in error for error in refused)


def test_a_chunk_broken_behind_the_first(tmp_path):
    """Pillow raises SyntaxError where it meets it, long after opening."""
    draw = np.random.default_rng(0)
    content = bytearray(saved(Image.fromarray(draw.integers(0, 256, (300, 300, 3), dtype=np.uint8))))
    second = content.index(b"IDAT", content.index(b"IDAT") + 4)
    content[second : second + 4] = b"\0\1\2\3"
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    assert picture_size(str(path)) == (300, 300)
    with pytest.raises(DataError, match=r"image .*broken.png: cannot be read \(.*\); mend or drop it"):
        read_picture(str(path))
