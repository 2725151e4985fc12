"""Pictures of the world: what the texts of an episode have told so far, drawn, and nothing more.

A picture is a function of a :class:`~qsft.envs.alfworld.view.View`, which is read from the texts alone.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qsft.envs.alfworld.facts import receptacle_types
from qsft.envs.alfworld.shapes import require_pillow, sprite, strokes
from qsft.envs.alfworld.view import View, type_of
from qsft.errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image

    Box = tuple[float, float, float, float]

SMALLEST, LARGEST = 64, 2048
_SMALLEST_LETTERS = 7  # pixels
_WALL, _FLOOR, _INK = "#f4efe6", "#d9c7a7", "#1f1f1f"
_SURFACE, _INTERIOR, _DOOR = "#e8d3ae", "#5b4636", "#b08d63"
_LABEL = "#ffffff"
#: in the order in which they are shown
_STATES = ("hot", "cool", "clean", "sliced", "on")
# The parts of a picture, in 300ths of its side: left, top, right, bottom.
_PLACE = (6, 4, 104, 102)
_NAME = (108, 6, 296, 32)
_BESIDE = (108, 52, 296, 102)
_PANEL = (6, 106, 294, 236)
_INSIDE = (10, 111, 290, 233)
_HAND = (4, 242, 60, 298)
_HELD = (62, 242, 180, 298)
_NOTHING = (248, 246, 296, 294)
_ROOM = (4, 4, 296, 236)


class Painter:
    """Draws views.

    Args:
        size: side of the square pictures in pixels, at least 64.
        labels: write the names of things beside them, the number alone where a name does not fit. Without, numbers
            cannot be told.

    Raises:
        ConfigError: ``size`` is too small or too large, ``labels`` is no truth value, or Pillow is missing.
    """

    def __init__(self, size: int = 300, labels: bool = True) -> None:
        if isinstance(size, bool) or not isinstance(size, int) or not SMALLEST <= size <= LARGEST:
            raise ConfigError(f"alfworld: image_size={size!r:.60}; give a whole number from {SMALLEST} to {LARGEST}")
        if not isinstance(labels, bool):
            raise ConfigError(f"alfworld: labels={labels!r:.60}; give true or false")
        require_pillow()
        self.size = size
        self.labels = labels
        self._unit = size / 300
        self._last_room: tuple[tuple[str, ...], Image] | None = None

    def draw(self, view: View) -> Image:
        """A picture of ``size`` x ``size`` pixels, RGB."""
        if view.here is None:
            image = self._room(view.receptacles).copy()
        else:
            image = _background(self.size).copy()
            self._place(image, view, view.here)
        self._sprite(image, "hand", _HAND)
        if view.held is not None:
            self._thing(image, view.held, _HELD, view.states.get(view.held, ()))
        if view.refused:
            self._sprite(image, "nothing", _NOTHING)
        return image

    def pixels(self, view: View) -> NDArray[np.uint8]:
        """The picture as numbers, ``[size, size, 3]``."""
        return np.asarray(self.draw(view)).copy()

    def _room(self, receptacles: tuple[str, ...]) -> Image:
        """The whole room from its middle: that there are these receptacles."""
        if self._last_room is None or self._last_room[0] != receptacles:
            image = _background(self.size).copy()
            kinds: dict[str, list[str]] = {}
            for name in receptacles:
                kinds.setdefault(type_of(name), []).append(name)
            for names, box in zip(kinds.values(), _grid(_ROOM, max(len(kinds), 6)), strict=False):
                self._row_of_one_kind(image, names, box)
            self._last_room = receptacles, image
        return self._last_room[1]

    def _row_of_one_kind(self, image: Image, names: list[str], box: Box) -> None:
        """Receptacles of one type: as many as there are, one over the other, with one label for all."""
        left, top, right, bottom = box
        label = 13 if self.labels else 0
        side = min((right - left) * 0.62, bottom - top - label - 3)
        step = min((right - left - side) / max(len(names) - 1, 1), side * 0.55)
        x = left + (right - left - side - step * (len(names) - 1)) / 2
        for number in range(len(names)):
            self._sprite(image, type_of(names[0]), (x + number * step, top, x + number * step + side, top + side))
        self._label(image, _together(names), (left, bottom - label - 2, right, bottom), label)

    def _place(self, image: Image, view: View, here: str) -> None:
        """Where one stands: the receptacle, what is in or on it, and what else is in the same place."""
        opened = view.opened.get(here)
        shape = f"{type_of(here)}/open" if opened else type_of(here)
        self._sprite(image, shape if shape in strokes() else type_of(here), _PLACE)
        self._label(image, here, _NAME, 22)
        beside = [name for name in view.beside() if name != here]
        for name, box in zip(beside, _grid(_BESIDE, max(len(beside), 4)), strict=False):
            self._thing(image, name, box)
        inside = view.inside.get(here)
        if opened is False:
            self._panel(image, _DOOR, doors=True)
        elif inside is not None:
            kind = receptacle_types().get(type_of(here))
            self._panel(image, _INTERIOR if kind and kind.openable else _SURFACE)
            unseen = here not in view.looked  # what else is there was not told
            cells = _grid(_INSIDE, max(len(inside) + unseen, 8))
            for name, box in zip(inside, cells, strict=False):
                self._thing(image, name, box, view.states.get(name, ()))
            if unseen:
                self._sprite(image, "?", cells[len(inside)])

    def _thing(self, image: Image, name: str, box: Box, states: Collection[str] = ()) -> None:
        """An object or a small receptacle with its label below and its states at its upper right corner."""
        left, top, right, bottom = box
        label = min((bottom - top) * 0.3, 15) if self.labels else 0
        side = min(right - left, bottom - top - label) * 0.94
        x = left + (right - left - side) / 2
        self._sprite(image, type_of(name), (x, top, x + side, top + side))
        mark = side * 0.42
        edge = min(x + side + mark / 2, right)
        for number, state in enumerate(state for state in _STATES if state in states):
            y = top + number * mark * 0.9
            self._sprite(image, state, (edge - mark, y, edge, y + mark))
        self._label(image, name, (left, bottom - label, right, bottom), label)

    def _sprite(self, image: Image, name: str, box: Box) -> None:
        side = max(round((box[2] - box[0]) * self._unit), 4)
        picture = sprite(name, side)
        image.paste(picture, (round(box[0] * self._unit), round(box[1] * self._unit)), picture)

    def _label(self, image: Image, text: str, box: Box, height: float) -> None:
        """Text in the middle of the box, shrunk to its width; where not even its number fits, none."""
        if self.labels:
            picture = _written(text, round((box[2] - box[0]) * self._unit), round(height * self._unit))
            if picture is None:
                return
            x = (box[0] + box[2]) * self._unit / 2 - picture.width / 2
            image.paste(picture, (round(x), round(box[1] * self._unit)))

    def _panel(self, image: Image, colour: str, doors: bool = False) -> None:
        from PIL import ImageDraw

        draw = ImageDraw.Draw(image)
        left, top, right, bottom = (round(edge * self._unit) for edge in _PANEL)
        edge = max(round(2 * self._unit), 1)
        draw.rectangle((left, top, right, bottom), fill=colour, outline=_INK, width=edge)
        if doors:
            middle, height = (left + right) // 2, (bottom - top) // 5
            draw.line((middle, top, middle, bottom), fill=_INK, width=edge * 2)
            for x in (middle - 6 * edge, middle + 6 * edge):
                y = (top + bottom) // 2
                draw.line((x, y - height, x, y + height), fill=_INK, width=edge * 2)


def _together(names: list[str]) -> str:
    """``"cabinet 1-3"`` for numbers without a gap, else each of them."""
    numbers = [int(name.partition(" ")[2]) for name in names]
    if len(numbers) > 1 and sorted(numbers) == list(range(min(numbers), max(numbers) + 1)):
        return f"{type_of(names[0])} {min(numbers)}-{max(numbers)}"
    return " ".join([type_of(names[0]), *map(str, numbers)])


def _grid(box: Box, count: int) -> list[Box]:
    """So many equal cells in a box, in rows; as large as they can be."""
    width, height = box[2] - box[0], box[3] - box[1]
    columns = max(
        range(1, count + 1), key=lambda n: (min(width / n, 0.8 * height / -(-count // n)), -n)
    )  # a cell is a bit higher than it is wide: its label stands below
    rows = -(-count // columns)
    w, h = width / columns, height / rows
    return [
        (box[0] + i % columns * w + 1, box[1] + i // columns * h + 1, box[0] + (i % columns + 1) * w - 1,
         box[1] + (i // columns + 1) * h - 1)
        for i in range(count)
    ]  # fmt: skip


@lru_cache(maxsize=8)
def _background(size: int) -> Image:
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (size, size), _WALL)
    ImageDraw.Draw(image).rectangle((0, size * 0.8, size, size), fill=_FLOOR)
    return image


@lru_cache(maxsize=4096)
def _written(text: str, width: int, height: int) -> Image | None:
    """A label: dark on white, at most so wide, and so high if it can be read then.

    What does not fit at the smallest size is shortened to its numbers, since the drawing shows the type.
    """
    from PIL import Image, ImageDraw, ImageFont

    for said in (text, text.partition(" ")[2].replace(" ", ",")):
        for size in range(max(height, _SMALLEST_LETTERS), _SMALLEST_LETTERS - 1, -1):
            font = ImageFont.load_default(size)
            left, top, right, bottom = font.getbbox(said)
            if right - left + 4 <= width:
                picture = Image.new("RGB", (round(right - left) + 4, round(bottom - top) + 3), _LABEL)
                ImageDraw.Draw(picture).text((2 - left, 1 - top), said, font=font, fill=_INK)
                return picture
    return None
