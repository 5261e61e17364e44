"""Scales, grids and labels of the plots.

Lengths are in units of the drawing, which is 420 wide: on a phone about 0.8 pixels, on a desk 1.2, so text of 13 units
stays legible on both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from keylatch.audit.report._html import Html, element, markup
from keylatch.audit.report._result import Measured
from keylatch.audit.report._words import cut

_WIDTH = 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 36.0, 326.0, 12.0, 268.0
_STRIP, _GAP, _INSET = 46.0, 8.0, 14.0
_LABEL_HEIGHT, _LABEL_WIDTH, _LABEL_CHARACTERS = 15.0, 84.0, 13
_TICK_WIDTH, _LINE = 40.0, 14.0


@dataclass(frozen=True, slots=True)
class Frame:
    """A plot's area: accuracy in percent upward; to the right strips for zero and less, then a logarithmic scale.

    Attributes:
        low: Smallest positive number on the scale; None without any.
        high: Largest.
        strips: Numbers that have a strip, from left to right.
    """

    low: float | None
    high: float | None
    strips: tuple[float, ...]

    @classmethod
    def around(cls, values: Iterable[float]) -> Frame:
        """The frame that shows these numbers."""
        distinct = sorted(set(values))
        positive = [value for value in distinct if value > 0]
        # Zero stands at the left, whatever is less beside it.
        strips = tuple(value for value in reversed(distinct) if value <= 0)
        return cls(min(positive, default=None), max(positive, default=None), strips)

    @property
    def left(self) -> float:
        """Where the logarithmic scale begins."""
        return _LEFT + len(self.strips) * (_STRIP + _GAP)

    def strip(self, value: float) -> tuple[float, float]:
        """From where to where a strip goes: to the right edge, if there is no scale and it is the last."""
        place = self.strips.index(value)
        start = _LEFT + place * (_STRIP + _GAP)
        last = self.low is None and place == len(self.strips) - 1
        return start, _RIGHT if last else start + _STRIP

    def x(self, value: float) -> float:
        """Position of a number; zero and less stand in the middle of their strip."""
        if value <= 0 or self.low is None or self.high is None:
            return sum(self.strip(value)) / 2
        if self.low == self.high:
            return (self.left + _RIGHT) / 2
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.left + _INSET + share * (_RIGHT - self.left - 2 * _INSET)

    def y(self, percent: float) -> float:
        """Position of an accuracy."""
        return _BOTTOM - min(max(percent, 0.0), 100.0) / 100 * (_BOTTOM - _TOP)

    @property
    def spans(self) -> list[tuple[float, float]]:
        """The strips and the scale: from where to where."""
        return [*map(self.strip, self.strips), *([(self.left, _RIGHT)] if self.low is not None else [])]


@dataclass(frozen=True, slots=True)
class Level:
    """What stands beside a line's right end.

    Attributes:
        name: The label.
        percent: The line's height there.
        style: Class of the line.
    """

    name: str
    percent: float
    style: str


def grid(frame: Frame) -> Html:
    """Horizontal lines each 20 %, and the scale's numbers."""
    lines = []
    for percent in range(0, 101, 20):
        y = frame.y(percent)
        lines += [element("line", class_="grid", x1=x1, x2=x2, y1=y, y2=y) for x1, x2 in frame.spans]
        lines.append(element("text", str(percent), class_="tick", x=_LEFT - 6, y=y + 4.5, text_anchor="end"))
    return markup(lines)


def ticks(frame: Frame, marks: Sequence[tuple[float, Sequence[str]]], title: str) -> Html:
    """Marks under the scale, each of one or two lines, where there is room; and what the scale counts.

    Args:
        frame: The plot's area.
        marks: Number and lines, ascending.
        title: Stands under the marks.
    """
    parts = []
    for value, lines in _with_room(frame, marks):
        x = frame.x(value)
        parts.append(element("line", class_="axis", x1=x, x2=x, y1=_BOTTOM, y2=_BOTTOM + 4))
        parts += [_tick(x, _BOTTOM + 17 + _LINE * row, line) for row, line in enumerate(lines)]
    below = _BOTTOM + 19 + _LINE * max((len(lines) for _, lines in marks), default=1)
    parts.append(element("text", title, class_="scale", x=(_LEFT + _RIGHT) / 2, y=below, text_anchor="middle"))
    return markup(parts, [element("line", class_="axis", x1=a, x2=b, y1=_BOTTOM, y2=_BOTTOM) for a, b in frame.spans])


def levels(frame: Frame, shown: Sequence[Level]) -> Html:
    """Labels right of the plot, moved apart where they would touch."""
    parts, free = [], -math.inf
    ordered = sorted(shown, key=lambda level: -level.percent)
    for index, level in enumerate(ordered):
        room = _BOTTOM + 4 - _LABEL_HEIGHT * (len(ordered) - 1 - index)
        y = min(max(frame.y(level.percent), free), room)
        free = y + _LABEL_HEIGHT
        path = f"M{_RIGHT:.0f} {frame.y(level.percent):.1f} L{_RIGHT + 6:.0f} {y:.1f}"
        parts.append(element("path", class_=f"leader {level.style}", d=path))
        parts.append(_label(level, y))
    return markup(parts)


def _label(level: Level, y: float) -> Html:
    shown = cut(level.name, _LABEL_CHARACTERS)
    # What had to be cut may be of wide letters; it is squeezed into the margin.
    was_cut = shown != level.name
    return element(
        "text",
        element("title", level.name),
        shown,
        class_=f"level {level.style}",
        x=_RIGHT + 9,
        y=y + 4.5,
        textLength=_LABEL_WIDTH if was_cut else None,
        lengthAdjust="spacingAndGlyphs" if was_cut else None,
    )


def flat(frame: Frame, percent: float, style: str) -> Html:
    """A line over the whole width."""
    y = frame.y(percent)
    return markup([element("line", class_=f"curve {style}", x1=a, x2=b, y1=y, y2=y) for a, b in frame.spans])


def curve(positions: Sequence[tuple[float, float]], style: str) -> Html:
    """A line through points."""
    return element("polyline", class_=f"curve {style}", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in positions))


def whisker(frame: Frame, x: float, measured: Measured, style: str) -> Html:
    """The range over the seeds; nothing where there is none."""
    if measured.low is None or measured.high is None or measured.low == measured.high:
        return markup()
    y1, y2 = frame.y(measured.high), frame.y(measured.low)
    return element("line", class_=f"whisker {style}", x1=x, x2=x, y1=y1, y2=y2)


def drawing(title: str, *content: Html, tick_lines: int = 1) -> Html:
    """A plot as an inline drawing, named for those who cannot see it."""
    height = _BOTTOM + 24 + _LINE * tick_lines
    return element("svg", *content, viewBox=f"0 0 {_WIDTH} {height:.0f}", role="img", aria_label=title)


def _with_room(frame: Frame, marks: Sequence[tuple[float, Sequence[str]]]) -> list[tuple[float, Sequence[str]]]:
    """The marks without those that would touch the one before or the last."""
    kept: list[tuple[float, Sequence[str]]] = []
    for mark in marks:
        x = frame.x(mark[0])
        near = [*(other for other, _ in kept[-1:]), *(other for other, _ in marks[-1:] if mark is not marks[-1])]
        if all(abs(frame.x(other) - x) >= _TICK_WIDTH for other in near):
            kept.append(mark)
    return kept


def _tick(x: float, y: float, line: str) -> Html:
    return element("text", line, class_="tick", x=x, y=y, text_anchor="middle")
