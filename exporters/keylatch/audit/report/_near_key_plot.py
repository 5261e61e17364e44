"""The plot of nearly right keys: how soon an accuracy falls as parts of a key are wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from keylatch.audit.report import _axes
from keylatch.audit.report._axes import Frame, Level
from keylatch.audit.report._html import Html, element, markup
from keylatch.audit.report._result import Json, Measured, entries, real, section, string
from keylatch.audit.report._words import number, percent


@dataclass(frozen=True, slots=True)
class NearKey:
    """Accuracy with so much of a key wrong.

    Attributes:
        wrong: How many bits of the code, or entries of a block transform's key.
        unit: Which of them, in the plural.
        share: Of all there are, in percent.
        accuracy: In percent.
        log2_chance: log2 of the chance that a guess comes as near.
        opens: Whether it beats chance, and all nearer keys do too; None if that was not judged.
    """

    wrong: int
    unit: str
    share: float | None
    accuracy: Measured
    log2_chance: float | None
    opens: bool | None


def near_keys_in(result: Json) -> list[NearKey]:
    """The near keys of an audit, nearest first."""
    return sorted((_near_key(entry) for entry in entries(result, "near_keys")), key=lambda key: key.wrong)


def near_key_plot(result: Json) -> Html | None:
    """Draw accuracy against wrong bits or entries; None where no near key was measured."""
    keys = [key for key in near_keys_in(result) if key.accuracy.value is not None]
    if not keys:
        return None
    frame, unit = Frame.around(key.wrong for key in keys), keys[0].unit
    positions = [(frame.x(key.wrong), frame.y(key.accuracy.value or 0.0)) for key in keys]
    marks = [(float(key.wrong), [number(key.wrong), share_of(key)]) for key in keys]
    drawn = _axes.drawing(
        f"Accuracy in percent with nearly right keys, against the number of wrong {unit}",
        _axes.grid(frame),
        _axes.ticks(frame, marks, f"wrong {unit}, and their share of the key"),
        _references(frame, result),
        _axes.curve(positions, "near"),
        markup([_mark(frame, key) for key in keys]),
        tick_lines=2,
    )
    return element("figure", element("h3", "What nearly right keys give"), drawn, _caption(keys))


def share_of(key: NearKey) -> str:
    """Share of the key that is wrong, in percent."""
    return "" if key.share is None else f"{number(round(key.share, 1))}\u00a0%"


def _near_key(entry: Json) -> NearKey:
    wrong, unit, opens = int(real(entry, "wrong") or 0), string(entry, "unit") or "bits", entry.get("opens")
    judged = opens if isinstance(opens, bool) else None
    return NearKey(wrong, unit, real(entry, "share"), Measured.of(entry), real(entry, "log2_chance"), judged)


def _references(frame: Frame, result: Json) -> Html:
    accuracy = section(result, "accuracy")
    known = [(name, value) for name in ("unlocked", "chance") if (value := real(accuracy, name)) is not None]
    lines = [_axes.flat(frame, value, name) for name, value in known]
    return markup(lines, _axes.levels(frame, [Level(name, value, name) for name, value in known]))


def _mark(frame: Frame, key: NearKey) -> Html:
    x, y = frame.x(key.wrong), frame.y(key.accuracy.value or 0.0)
    title = element("title", f"{number(key.wrong)} wrong {key.unit}: {percent(key.accuracy.value)}")
    dot = element("circle", cx=x, cy=y, r=4.5)
    return element("g", title, _axes.whisker(frame, x, key.accuracy, "near"), dot, class_="mark near")


def _caption(keys: Sequence[NearKey]) -> Html:
    first = next((key for key in keys if key.wrong > 0), keys[0])
    unit = {"bits": "bit", "entries": "entry"}.get(first.unit, first.unit)
    wrong = f"one wrong {unit}" if first.wrong == 1 else f"{number(first.wrong)} wrong {first.unit}"
    told = f"With {wrong} the model gives {percent(first.accuracy.value)}."
    hidden = f"an outsider does not know which {first.unit} are right"
    return element("figcaption", f"{told} Only the owner can make such keys: {hidden}.")
