"""The plot of harmless changes: what is left of both accuracies when images or weights are compressed, scaled, cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from keylatch.audit.report._html import Html, element, markup
from keylatch.audit.report._result import Json, entries, real, section, string
from keylatch.audit.report._symbols import dot, square, upright
from keylatch.audit.report._words import percent


@dataclass(frozen=True, slots=True)
class Survival:
    """Accuracies under one change of the images, in percent."""

    name: str
    setting: str
    unlocked: float | None
    locked: float | None
    note: str


def survivals_in(result: Json) -> list[Survival]:
    """All changes, those of one name together, in the audit's order."""
    found = [
        Survival(
            string(entry, "name") or "unnamed",
            string(entry, "setting"),
            real(entry, "unlocked"),
            real(entry, "locked"),
            string(entry, "note"),
        )
        for entry in entries(result, "survival")
    ]
    names = list(dict.fromkeys(change.name for change in found))
    return sorted(found, key=lambda change: names.index(change.name))


def survival_plot(result: Json) -> Html | None:
    """Draw a row for each change, text beside it, so that it wraps on a phone; None without any."""
    changes = survivals_in(result)
    if not changes:
        return None
    accuracy = section(result, "accuracy")
    levels = real(accuracy, "unlocked"), real(accuracy, "chance")
    unlocked = any(change.unlocked is not None for change in changes)
    rows = [_group(name, list(group), levels) for name, group in groupby(changes, key=lambda change: change.name)]
    head = element("ul", _legend(unlocked, levels), class_="legend")
    title = element("h3", "What harmless changes do")
    return element("figure", title, head, element("div", rows, class_="survival"), class_="wide")


def _group(name: str, changes: Sequence[Survival], levels: tuple[float | None, float | None]) -> Html:
    return element("section", _scale(name), [_row(change, levels) for change in changes])


def _row(change: Survival, levels: tuple[float | None, float | None]) -> Html:
    known = [value for value in (change.unlocked, change.locked) if value is not None]
    marks = [element("line", class_="grid", x1=f"{x}%", x2=f"{x}%", y1="0", y2="100%") for x in range(0, 101, 25)]
    marks += [_level(value, name) for value, name in zip(levels, ("unlocked", "chance"), strict=True)]
    if known:
        marks.append(element("line", class_="gap", x1=f"{min(known)}%", x2=f"{max(known)}%", y1="50%", y2="50%"))
    if change.locked is not None:
        # A drawing within the drawing takes a position in percent, and the square keeps its size.
        box = element("rect", class_="locked-mark", x=-4, y=-4, width=8, height=8)
        marks.append(element("svg", box, x=f"{change.locked}%", y="50%", overflow="visible"))
    if change.unlocked is not None:
        marks.append(element("circle", class_="unlocked-mark", cx=f"{change.unlocked}%", cy="50%", r="5"))
    told, seen = [f"locked {percent(change.locked)}"], [square("locked-mark"), percent(change.locked)]
    if change.unlocked is not None:
        told.insert(0, f"unlocked {percent(change.unlocked)}")
        seen = [dot("unlocked-mark"), percent(change.unlocked), *seen]
    note = element("i", change.note) if change.note else None
    return element(
        "div",
        element("span", change.setting or "as it is", note),
        element("svg", marks, role="img", aria_label=", ".join(told)),
        element("span", seen, class_="figures"),
        class_="change",
    )


def _level(value: float | None, name: str) -> Html:
    if value is None:
        return markup()
    return element("line", class_=f"curve {name}", x1=f"{value}%", x2=f"{value}%", y1="0", y2="100%")


def _scale(name: str) -> Html:
    """A group's name, and the percentages above its rows."""
    places = [(0, "start"), (50, "middle"), (100, "end")]
    marks = [element("text", str(x), class_="tick", x=f"{x}%", y="18", text_anchor=side) for x, side in places]
    return element("div", element("h4", name), element("svg", marks, aria_hidden="true"), class_="change scale")


def _legend(unlocked: bool, levels: tuple[float | None, float | None]) -> list[Html]:
    parts = [element("li", dot("unlocked-mark"), "with the license")] if unlocked else []
    parts.append(element("li", square("locked-mark"), "without a license"))
    names = ("with the license, nothing changed", "chance")
    for value, style, name in zip(levels, ("unlocked", "chance"), names, strict=True):
        if value is not None:
            parts.append(element("li", upright(f"curve {style}"), name))
    return parts
