"""Drawings of lines, dots and texts that come as SVG and as pixels alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from qsft.errors import ConfigError
from qsft.evaluation.markup import Markup, tag

if TYPE_CHECKING:
    from PIL.Image import Image

Point = tuple[float, float]

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
PAPER = "#ffffff"
# Pixels are drawn this many times as large and then made smaller, which smooths edges.
_SMOOTHING = 2


@dataclass(frozen=True, slots=True)
class _Line:
    points: Sequence[Point]
    colour: str
    width: float
    dashes: float


@dataclass(frozen=True, slots=True)
class _Dot:
    centre: Point
    radius: float
    colour: str


@dataclass(frozen=True, slots=True)
class _Text:
    place: Point
    text: str
    size: float
    colour: str
    anchor: str


@dataclass(slots=True)
class Drawing:
    """Marks on white paper, in the order in which they are made. Lengths are pixels, y goes down.

    Args:
        width, height: of the paper.
        label: what it shows, for those who cannot see it.
    """

    width: int
    height: int
    label: str
    _marks: list[_Line | _Dot | _Text] = field(default_factory=list)

    def line(self, points: Sequence[Point], colour: str, width: float = 2.0, dashes: float = 0.0) -> None:
        """A line through at least two points; ``dashes``: the length of each, 0 for none."""
        self._marks.append(_Line(tuple(points), colour, width, dashes))

    def dot(self, centre: Point, radius: float, colour: str) -> None:
        """A filled circle."""
        self._marks.append(_Dot(centre, radius, colour))

    def text(self, place: Point, text: str, size: float, colour: str, anchor: str = "start") -> None:
        """One line of text on a baseline; ``anchor`` is ``"start"``, ``"middle"`` or ``"end"``."""
        self._marks.append(_Text(place, text, size, colour, anchor))

    def svg(self) -> Markup:
        """The drawing as an ``svg`` element, which is also the content of an SVG file."""
        return tag(
            "svg",
            tag("title", self.label),
            tag("rect", width=self.width, height=self.height, fill=PAPER),
            (_svg(mark) for mark in self._marks),
            xmlns="http://www.w3.org/2000/svg",
            viewBox=f"0 0 {self.width} {self.height}",
            width=self.width,
            role="img",
            font_family=FONT,
        )

    def image(self) -> Image:
        """The drawing as an RGB image of ``width`` by ``height`` pixels.

        Raises:
            ConfigError: Pillow is not installed.
        """
        try:
            from PIL import Image, ImageDraw, ImageFont
        except ImportError as error:
            raise ConfigError(f"pictures need Pillow ({error}); install it: pip install pillow") from error
        scale = _SMOOTHING
        image = Image.new("RGB", (self.width * scale, self.height * scale), PAPER)
        pen = ImageDraw.Draw(image)
        for mark in self._marks:
            if isinstance(mark, _Text):
                font = ImageFont.load_default(mark.size * scale)
                anchor = {"start": "ls", "middle": "ms", "end": "rs"}[mark.anchor]
                x, y = mark.place
                text = mark.text.replace("\u2212", "-")  # Pillow's own font has no true minus
                pen.text((x * scale, y * scale), text, mark.colour, font, anchor)
            elif isinstance(mark, _Dot):
                (x, y), r = mark.centre, mark.radius
                pen.ellipse([(x - r) * scale, (y - r) * scale, (x + r) * scale, (y + r) * scale], mark.colour)
            else:
                for piece in _dashed(mark.points, mark.dashes):
                    pen.line(
                        [(x * scale, y * scale) for x, y in piece], mark.colour, round(mark.width * scale), "curve"
                    )
        return image.resize((self.width, self.height), Image.Resampling.BOX)


def _svg(mark: _Line | _Dot | _Text) -> Markup:
    if isinstance(mark, _Dot):
        return tag("circle", cx=_short(mark.centre[0]), cy=_short(mark.centre[1]), r=mark.radius, fill=mark.colour)
    if isinstance(mark, _Text):
        x, y = (_short(value) for value in mark.place)
        return tag("text", mark.text, x=x, y=y, font_size=mark.size, fill=mark.colour, text_anchor=mark.anchor)
    return tag(
        "polyline",
        points=" ".join(f"{_short(x)},{_short(y)}" for x, y in mark.points),
        fill="none",
        stroke=mark.colour,
        stroke_width=mark.width,
        stroke_linejoin="round",
        stroke_dasharray=mark.dashes or None,
    )


def _short(value: float) -> Any:
    return f"{value:.1f}".removesuffix(".0")


def _dashed(points: Sequence[Point], length: float) -> list[list[Point]]:
    """The pieces of a line that are drawn when dashes and gaps of one length alternate."""
    if not length:
        return [list(points)]
    pieces: list[list[Point]] = [[points[0]]]
    drawn, left = True, length
    for (x0, y0), (x1, y1) in pairwise(points):
        whole = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
        done = 0.0
        while whole - done > left:
            done += left
            share = done / whole
            at = (x0 + share * (x1 - x0), y0 + share * (y1 - y0))
            if drawn:
                pieces[-1].append(at)
            else:
                pieces.append([at])
            drawn, left = not drawn, length
        left -= whole - done
        if drawn:
            pieces[-1].append((x1, y1))
    return [piece for piece in pieces if len(piece) > 1]
