"""Numbers as text. What was not measured is a dash."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from keylatch.audit.report._result import Attack, Measured

NOTHING = "–"
_MINUS = "−"
_LONG_SECONDS = 120


def percent(value: float | None) -> str:
    """``97.6 %``."""
    return NOTHING if value is None else f"{value:.1f}\u00a0%"


def spread(measured: Measured) -> str:
    """``48.0 to 52.2``; nothing where all runs gave the same or there was one."""
    low, high = measured.low, measured.high
    return "" if low is None or high is None or low == high else f"{low:.1f} to {high:.1f}"


def points(value: float | None) -> str:
    """A difference of percentages, signed: ``+4.1``."""
    return NOTHING if value is None else f"{value:+.1f}".replace("-", _MINUS)


def versus(attack: Attack) -> str:
    """``4.1 points above`` the baseline."""
    if attack.margin is None:
        return "beside no baseline"
    side = "above" if attack.margin > 0 else "below"
    return f"{abs(attack.margin):.1f} points {side} its baseline"


def count(value: float | None) -> str:
    """``1,348``."""
    return NOTHING if value is None else number(value)


def counted(value: int, noun: str) -> str:
    """``1 seed``, ``2 seeds``."""
    return f"{value:,} {noun}{'' if value == 1 else 's'}"


def number(value: float) -> str:
    """An integer in full, anything else to one decimal, or three digits if it is small."""
    return f"{int(value):,}" if float(value).is_integer() else f"{value:,.1f}" if abs(value) >= 1 else f"{value:.3g}"


def duration(seconds: float | None) -> str:
    """``4.2 s``, ``3.5 min``."""
    if seconds is None:
        return NOTHING
    return f"{seconds / 60:.1f}\u00a0min" if seconds >= _LONG_SECONDS else f"{seconds:.1f}\u00a0s"


def cut(value: str, length: int) -> str:
    """At most so many characters, for places that cannot wrap."""
    return value if len(value) <= length else value[: length - 1].rstrip() + "…"


def words(value: Any) -> str:
    """Whatever a description says, on one line."""
    match value:
        case None | "":
            return NOTHING
        case str() | bool():
            return str(value)
        case int() | float():
            return str(value)
        case Mapping():
            return ", ".join(f"{key} {words(part)}" for key, part in value.items()) or NOTHING
        case list() | tuple():
            nested = any(isinstance(part, Mapping | list | tuple) for part in value)
            return ("; " if nested else ", ").join(words(part) for part in value) or NOTHING
    return json.dumps(value, default=str)
