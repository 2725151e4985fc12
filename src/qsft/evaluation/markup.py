"""HTML that is escaped unless it was made here."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

_VOID = {"br", "meta", "hr"}


class Markup(str):
    """Text that is HTML already. Every other ``str`` is escaped when it becomes a child or an attribute of a tag."""

    __slots__ = ()


def tag(name: str, /, *children: Any, **attributes: Any) -> Markup:
    """One element. ``class_`` and ``aria_label`` become ``class`` and ``aria-label``.

    Args:
        children: texts and numbers (escaped), :class:`Markup` (kept), ``None`` (left out), or iterables of these.
        attributes: ``None`` and ``False`` leave the attribute out, ``True`` writes it without a value.
    """
    written = "".join(_attribute(key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(children)}</{name}>")


def join(children: Iterable[Any], separator: str = "") -> Markup:
    """The children one after another, escaped as :func:`tag` does."""
    return Markup(escape(separator).join(_child(child) for child in children))


def number(value: float | None, digits: int = 2) -> str:
    """A number with a true minus sign; a dash where there is none. ``-0.00`` is written ``0.00``."""
    if value is None:
        return "–"
    text = f"{value:,.{digits}f}"
    if text.startswith("-"):
        text = text[1:] if not text.strip("-0.,") else "\u2212" + text[1:]
    return text


def _attribute(key: str, value: Any) -> str:
    if value is None or value is False:
        return ""
    return f" {key}" if value is True else f' {key}="{escape(str(value), quote=True)}"'


def _child(child: Any) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, (str, int, float)):
        return escape(str(child), quote=False)
    return join(child)
