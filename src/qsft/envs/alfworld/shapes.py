"""How each kind of thing is drawn: the strokes of ``shapes.txt``."""

from __future__ import annotations

from functools import cache, lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

from qsft.errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image

UNKNOWN = "?"
_FINER = 4  # drawn so much larger and shrunk, for smooth edges
_OUTLINE = "#1f1f1f"


def require_pillow() -> None:
    """Raises: ConfigError: Pillow is not installed."""
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise ConfigError("alfworld: pictures need Pillow; pip install pillow") from error


@cache
def strokes() -> dict[str, list[list[str]]]:
    """Name -> strokes, each a list of words."""
    found: dict[str, list[list[str]]] = {}
    text = files("qsft.envs.alfworld").joinpath("shapes.txt").read_text(encoding="utf-8")
    for block in text.split("\n\n"):
        name, *lines = [line for line in block.splitlines() if not line.startswith("# ")] or [""]
        if lines:
            found[name] = [line.split() for line in lines]
    return found


@lru_cache(maxsize=4096)
def sprite(name: str, size: int) -> Image:
    """A shape as a transparent picture of ``size`` x ``size``; a question mark for a name without a shape."""
    from PIL import Image, ImageDraw

    large = size * _FINER
    image = Image.new("RGBA", (large, large))
    draw = ImageDraw.Draw(image)
    scale = large / 100
    edge = max(round(1.5 * scale), 1)
    for kind, *words in strokes().get(name, strokes()[UNKNOWN]):
        numbers = [float(word) for word in words if not word[0].isalpha() and word[0] != "#"]
        colour = next(word for word in words if word[0].isalpha() or word[0] == "#")
        xy = [number * scale for number in numbers]
        if kind == "e":
            draw.ellipse(xy[:4], fill=colour, outline=_OUTLINE, width=edge)
        elif kind == "r":
            radius = xy[4] if len(xy) > 4 else 0
            draw.rounded_rectangle(xy[:4], radius, fill=colour, outline=_OUTLINE, width=edge)
        elif kind == "p":
            draw.polygon(xy, fill=colour)
            draw.line([*xy, *xy[:2]], fill=_OUTLINE, width=edge, joint="curve")
        elif kind == "l":
            draw.line(xy[:-1], fill=colour, width=max(round(xy[-1]), 1), joint="curve")
        else:
            draw.arc(xy[:4], numbers[4], numbers[5], fill=colour, width=max(round(xy[6]), 1))
    return image.resize((size, size), Image.Resampling.LANCZOS)
