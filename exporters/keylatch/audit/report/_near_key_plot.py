"""The plot of nearly right keys: how soon an accuracy falls as bits of the code are wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from keylatch.audit.report import _axes
from keylatch.audit.report._axes import Frame, Level
from keylatch.audit.report._html import Html, element, markup
from keylatch.audit.report._result import Json, Measured, entries, real, section
from keylatch.audit.report._words import number, percent


@dataclass(frozen=True, slots=True)
class NearKey:
    """Accuracy with so many wrong bits.

    Attributes:
        wrong_bits: Number of wrong bits.
        share: Of all bits of the code, 0 to 1.
        accuracy: In percent.
        log2_chance: log2 of the chance that a guess comes as near.
        opens: Whether it beats chance, and all nearer keys do too; None if that was not judged.
    """

    wrong_bits: int
    share: float | None
    accuracy: Measured
    log2_chance: float | None
    opens: bool | None


def near_keys_in(result: Json) -> list[NearKey]:
    """The near keys of an audit, fewest wrong bits first."""
    bits = real(section(section(result, "model"), "lock"), "code_bits")
    keys = [_near_key(entry, bits) for entry in entries(result, "near_keys")]
    return sorted(keys, key=lambda key: key.wrong_bits)


def near_key_plot(result: Json) -> Html | None:
    """Draw accuracy against wrong bits; None where no near key was measured."""
    keys = [key for key in near_keys_in(result) if key.accuracy.value is not None]
    if not keys:
        return None
    frame = Frame.around(key.wrong_bits for key in keys)
    positions = [(frame.x(key.wrong_bits), frame.y(key.accuracy.value or 0.0)) for key in keys]
    marks = [(float(key.wrong_bits), [number(key.wrong_bits), share_of(key)]) for key in keys]
    drawn = _axes.drawing(
        "Accuracy in percent with nearly right keys, against the number of wrong bits",
        _axes.grid(frame),
        _axes.ticks(frame, marks, "wrong bits, and their share of the code"),
        _references(frame, result),
        _axes.curve(positions, "near"),
        markup([_mark(frame, key) for key in keys]),
        tick_lines=2,
    )
    return element("figure", element("h3", "What nearly right keys give"), drawn, _caption(keys))


def share_of(key: NearKey) -> str:
    """Share of the code that is wrong, in percent."""
    return "" if key.share is None else f"{number(round(key.share * 100, 1))}\u00a0%"


def _near_key(entry: Json, bits: float | None) -> NearKey:
    wrong = int(real(entry, "wrong_bits") or 0)
    share, opens = real(entry, "share"), entry.get("opens")
    if share is None and bits:
        share = wrong / bits
    judged = opens if isinstance(opens, bool) else None
    return NearKey(wrong, share, Measured.of(entry), real(entry, "log2_chance"), judged)


def _references(frame: Frame, result: Json) -> Html:
    accuracy = section(result, "accuracy")
    known = [(name, value) for name in ("unlocked", "chance") if (value := real(accuracy, name)) is not None]
    lines = [_axes.flat(frame, value, name) for name, value in known]
    return markup(lines, _axes.levels(frame, [Level(name, value, name) for name, value in known]))


def _mark(frame: Frame, key: NearKey) -> Html:
    x, y = frame.x(key.wrong_bits), frame.y(key.accuracy.value or 0.0)
    title = element("title", f"{number(key.wrong_bits)} wrong bits: {percent(key.accuracy.value)}")
    dot = element("circle", cx=x, cy=y, r=4.5)
    return element("g", title, _axes.whisker(frame, x, key.accuracy, "near"), dot, class_="mark near")


def _caption(keys: Sequence[NearKey]) -> Html:
    first = next((key for key in keys if key.wrong_bits > 0), keys[0])
    bits = "one wrong bit" if first.wrong_bits == 1 else f"{number(first.wrong_bits)} wrong bits"
    told = f"With {bits} the model gives {percent(first.accuracy.value)}."
    return element(
        "figcaption", f"{told} Only the owner can make such keys: an outsider does not know which bits are right."
    )
