"""HTML and SVG elements. Whatever is not `Html` is escaped, so nothing that a model's author wrote becomes markup."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TypeAlias

_VOID = frozenset({"meta", "br"})
_HARD_SPACE = "\u00a0"  # ours: between a number and its unit
_BLANK = "\n\r\t"


class Html(str):
    """Markup; made by `element`, `text` and `markup` only."""

    __slots__ = ()


Content: TypeAlias = "str | Iterable[Content] | None"
Attribute: TypeAlias = str | float | None


def element(name: str, *content: Content, **attributes: Attribute) -> Html:
    """Make an element.

    Args:
        name: The tag.
        content: Text, which is escaped, elements, None for nothing, or lists of these.
        attributes: ``class_`` stands for ``class``, ``stroke_width`` for ``stroke-width``; None leaves one out.
    """
    opening = name + "".join(_attribute(key, value) for key, value in attributes.items() if value is not None)
    return Html(f"<{opening}>") if name in _VOID else Html(f"<{opening}>{markup(*content)}</{name}>")


def markup(*content: Content) -> Html:
    """Join contents without an element around them."""
    return Html("".join(_written(part) for part in content))


def text(value: object) -> Html:
    """Escape a text, for content or a quoted attribute.

    Control and direction-override characters, which could rewrite a line of the report, are spelled out; so are lone
    surrogates, which UTF-8 does not have.
    """
    return Html(html.escape("".join(_visible(char) for char in str(value))))


def _visible(char: str) -> str:
    if char in _BLANK:
        return " "
    return char if char.isprintable() or char == _HARD_SPACE else ascii(char)[1:-1]


def _written(part: Content) -> str:
    if part is None:
        return ""
    if isinstance(part, Html):
        return part
    return text(part) if isinstance(part, str) else markup(*part)


def _attribute(key: str, value: str | float) -> str:
    name = key.removesuffix("_").replace("_", "-")
    return f' {name}="{f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else text(value)}"'
