"""Small drawings that stand in text: legend marks and the verdict's sign. No font has to have them."""

from __future__ import annotations

from keylatch.audit.report._html import Html, element

_SIGNS = {
    "holds": "M6 12.5 L10.5 17 L18.5 7.5",
    "broken": "M7 7 L17 17 M17 7 L7 17",
    "incomplete": "M12 6 L12 13.5 M12 17 L12 17.5",
}


def sign(verdict: str) -> Html:
    """A check, a cross or an exclamation mark in a ring."""
    stroke = element("path", d=_SIGNS.get(verdict, _SIGNS["incomplete"]))
    return element("svg", element("circle", cx=12, cy=12, r=10.5), stroke, viewBox="0 0 24 24", class_="sign")


def badge(letter: str) -> Html:
    """The letter of a named attack, as it stands in the plot."""
    return element("span", letter, class_=f"badge attack-{letter}")


def dot(style: str) -> Html:
    """A round mark."""
    return _symbol(element("circle", cx=7, cy=7, r=4.5, class_=style))


def square(style: str) -> Html:
    """A hollow square."""
    return _symbol(element("rect", x=3, y=3, width=8, height=8, class_=style))


def diamond(style: str) -> Html:
    """A diamond."""
    return _symbol(element("polygon", points="7,1 13,7 7,13 1,7", class_=style))


def upright(style: str) -> Html:
    """A piece of a line."""
    return _symbol(element("line", x1=7, x2=7, y1=0, y2=14, class_=style))


def _symbol(shape: Html) -> Html:
    return element("svg", shape, viewBox="0 0 14 14", class_="symbol", aria_hidden="true")
