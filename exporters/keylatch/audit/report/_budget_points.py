"""What the plot of budgets shows: which attacks it names, and where points go that would cover each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from keylatch.audit.report._axes import Frame
from keylatch.audit.report._result import Attack, Baseline

LETTERS = "ABC"
_NAMED_RADIUS, _OTHER_RADIUS = 8.5, 3.5
_STEP, _REACH = 3.0, 7


@dataclass(frozen=True, slots=True)
class Point:
    """An attack's place in the plot.

    Attributes:
        letter: A to C for a named attack, else empty.
        x: In the drawing's units.
        y: In the drawing's units.
        radius: In the drawing's units.
    """

    attack: Attack
    letter: str
    x: float
    y: float
    radius: float


def letters_of(attacks: Sequence[Attack]) -> dict[str, str]:
    """Names of the strongest counting attacks, and the letters that stand for them.

    Args:
        attacks: Strongest first.
    """
    names = dict.fromkeys(attack.name for attack in attacks if attack.counts and attack.recovered.value is not None)
    return dict(zip(names, LETTERS, strict=False))


def place(frame: Frame, attacks: Sequence[Attack], letters: dict[str, str]) -> list[Point]:
    """Find a place for each attack at its height, as near to its budget as others leave room.

    Named attacks choose first, so that they stand where they belong.
    """
    placed: list[Point] = []
    shown = [attack for attack in attacks if attack.counts and attack.recovered.value is not None]
    for attack in sorted(shown, key=lambda attack: (attack.name not in letters, not attack.broken)):
        placed.append(_nearest(frame, attack, letters.get(attack.name, ""), placed))
    return placed


def better_baselines(attacks: Sequence[Attack], curves: Sequence[Baseline]) -> dict[float, float]:
    """The better baseline in percent for each column of the plot."""
    best: dict[float, float] = {}
    pairs = [(attack.column, attack.baseline) for attack in attacks if attack.counts]
    for column, accuracy in [*pairs, *((curve.labeled, curve.accuracy.value) for curve in curves)]:
        if accuracy is not None:
            best[column] = max(accuracy, best.get(column, 0.0))
    return dict(sorted(best.items()))


def _nearest(frame: Frame, attack: Attack, letter: str, placed: Sequence[Point]) -> Point:
    x, y = frame.x(attack.column), frame.y(attack.recovered.value or 0.0)
    radius = _NAMED_RADIUS if letter else _OTHER_RADIUS
    candidates = (Point(attack, letter, x + shift, y, radius) for shift in _shifts())
    free = (point for point in candidates if not any(_touch(point, other) for other in placed))
    return next(free, Point(attack, letter, x, y, radius))


def _shifts() -> Iterator[float]:
    yield 0.0
    for step in range(1, _REACH + 1):
        yield step * _STEP
        yield -step * _STEP


def _touch(one: Point, other: Point) -> bool:
    return (one.x - other.x) ** 2 + (one.y - other.y) ** 2 < (one.radius + other.radius) ** 2
