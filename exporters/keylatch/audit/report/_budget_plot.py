"""The plot that answers the audit's question: does the locked model help an attacker who has some labeled images?"""

from __future__ import annotations

from collections.abc import Sequence

from keylatch.audit._verdict import MARGIN_POINTS
from keylatch.audit.report import _axes
from keylatch.audit.report._axes import Frame, Level
from keylatch.audit.report._budget_points import Point, better_baselines, letters_of, place
from keylatch.audit.report._html import Html, element, markup
from keylatch.audit.report._result import WITH_BASE, Attack, Baseline, Json, attacks_in, baselines_in, real, section
from keylatch.audit.report._symbols import badge, diamond, dot
from keylatch.audit.report._words import count, percent, spread, versus

_STYLES = ("base-a", "base-b", "base-c")
_NO_LABELS: dict[float, Sequence[str]] = {0: ["none"], WITH_BASE: ["none", "+ base"]}


def budget_plot(result: Json) -> Html | None:
    """Draw recovered accuracy against the number of labeled images; None without an attack to show."""
    attacks = attacks_in(result)
    curves = [baseline for baseline in baselines_in(result) if baseline.labeled > 0]
    letters = letters_of(attacks)
    if not letters:
        return None
    shown = [attack for attack in attacks if attack.counts and attack.recovered.value is not None]
    frame = Frame.around([*(attack.column for attack in shown), *(curve.labeled for curve in curves)])
    points = place(frame, attacks, letters)
    drawn = _axes.drawing(
        "Recovered accuracy in percent against the number of labeled images, with the baselines",
        _zone(frame, better_baselines(attacks, curves), real(section(result, "accuracy"), "chance")),
        _axes.grid(frame),
        _budgets(frame),
        _lines(frame, result, curves),
        markup([_curve(points, letter) for letter in letters.values()]),
        # Named attacks come last, so they are drawn over the rest.
        markup([_mark(frame, point) for point in reversed(points)]),
        tick_lines=2 if WITH_BASE in frame.strips else 1,
    )
    return element("figure", element("h3", "What attackers recover"), drawn, _legend(shown, letters), _caption(shown))


def _zone(frame: Frame, best: dict[float, float], chance: float | None) -> Html:
    """The area in which a point is a break."""
    edges = {frame.x(column): frame.y(accuracy + MARGIN_POINTS) for column, accuracy in best.items()}
    floor = frame.y((chance or 0.0) + MARGIN_POINTS)
    parts = []
    for left, right in frame.spans:
        inside = [(x, y) for x, y in sorted(edges.items()) if left <= x <= right]
        inside = inside or [(left, floor)]
        edge = [(left, inside[0][1]), *inside, (right, inside[-1][1])]
        corners = [(left, frame.y(100)), *edge, (right, frame.y(100))]
        parts.append(element("polygon", class_="zone", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in corners)))
        parts.append(_axes.curve(edge, "zone-edge"))
    left = frame.spans[-1][0]
    return markup(parts, element("text", "a break", class_="zone-name", x=left + 6, y=frame.y(100) + 17))


def _budgets(frame: Frame) -> Html:
    marks: list[tuple[float, Sequence[str]]] = [(strip, _NO_LABELS[strip]) for strip in frame.strips]
    if frame.low is not None and frame.high is not None:
        steps = {frame.low, frame.high, *(10.0**power for power in range(9) if frame.low < 10**power < frame.high)}
        marks += [(step, [count(step)]) for step in sorted(steps)]
    return _axes.ticks(frame, marks, "labeled images of the attacker")


def _lines(frame: Frame, result: Json, curves: Sequence[Baseline]) -> Html:
    accuracy = section(result, "accuracy")
    parts, labels = [], []
    for name in ("unlocked", "chance"):
        value = real(accuracy, name)
        if value is not None:
            parts.append(_axes.flat(frame, value, name))
            labels.append(Level(name, value, name))
    for index, name in enumerate(dict.fromkeys(curve.name for curve in curves)):
        drawn = [curve for curve in curves if curve.name == name and curve.accuracy.value is not None]
        style = _STYLES[min(index, len(_STYLES) - 1)]
        parts.append(_baseline(frame, drawn, style))
        labels += [Level(name, curve.accuracy.value or 0.0, style) for curve in drawn[-1:]]
    return markup(parts, _axes.levels(frame, labels))


def _baseline(frame: Frame, drawn: Sequence[Baseline], style: str) -> Html:
    positions = [(frame.x(line.labeled), frame.y(line.accuracy.value or 0.0)) for line in drawn]
    whiskers = [_axes.whisker(frame, frame.x(line.labeled), line.accuracy, style) for line in drawn]
    return markup(_axes.curve(positions, style), whiskers)


def _curve(points: Sequence[Point], letter: str) -> Html:
    """Through an attack's best point at each budget."""
    best: dict[int, Point] = {}
    for point in points:
        if point.letter == letter and point.attack.labeled:
            known = best.get(point.attack.labeled, point)
            best[point.attack.labeled] = min(point, known, key=lambda one: one.y)
    ordered = sorted(best.values(), key=lambda point: point.attack.labeled)
    return _axes.curve([(point.x, point.y) for point in ordered], f"attack-{letter}")


def _mark(frame: Frame, point: Point) -> Html:
    attack, r = point.attack, point.radius
    style = f"mark {f'attack-{point.letter}' if point.letter else 'other'}{' broken' if attack.broken else ''}"
    title = ", ".join(filter(None, [attack.name, attack.variant, attack.given, percent(attack.recovered.value)]))
    if attack.broken:
        r *= 1.3
        corners = [(point.x, point.y - r), (point.x + r, point.y), (point.x, point.y + r), (point.x - r, point.y)]
        shape = element("polygon", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in corners))
    else:
        shape = element("circle", cx=point.x, cy=point.y, r=r)
    letter = element("text", point.letter, x=point.x, y=point.y + 4, text_anchor="middle") if point.letter else None
    bar = _axes.whisker(frame, point.x, attack.recovered, style)
    return element("g", element("title", title), bar, shape, letter, class_=style)


def _legend(shown: Sequence[Attack], letters: dict[str, str]) -> Html:
    items = []
    for name, letter in letters.items():
        best = next(attack for attack in shown if attack.name == name)
        told = f" {percent(best.recovered.value)}, {versus(best)}" if best.margin is not None else ""
        items.append(element("li", badge(letter), element("b", name), told))
    others = sum(attack.name not in letters for attack in shown)
    if others:
        items.append(element("li", dot("other"), f"{others} results of other attacks"))
    if any(attack.broken for attack in shown):
        items.append(element("li", diamond("broken"), "breaks the lock"))
    return element("ul", items, class_="legend")


def _caption(shown: Sequence[Attack]) -> Html:
    best = max(shown, key=lambda attack: attack.recovered.value or 0.0)
    highest = f"The highest accuracy that any attack recovered is {percent(best.recovered.value)}"
    within = f" ({spread(best.recovered)})" if spread(best.recovered) else ""
    by = f", by {best.name} with {best.given or 'the artifact only'}"
    beside = f"; without the model that attacker has {percent(best.baseline)}" if best.baseline is not None else ""
    bars = "Points in the shaded area are breaks. Bars are ranges over the seeds."
    return element("figcaption", f"{bars} {highest}{within}{by}{beside}.")
