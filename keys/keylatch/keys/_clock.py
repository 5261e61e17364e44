"""The clock floor: the earliest that "now" can be, whatever the clock says."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from keylatch.keys._claims import UnverifiedClaims

# 2026-11-20T00:00:00Z, seconds since the epoch: this code did not exist before.
BUILD_TIME = 1_795_132_800


def current_time() -> int:
    """Returns the system clock in whole seconds since the epoch, at least `BUILD_TIME`."""
    return max(int(time.time()), BUILD_TIME)


def clock_floor(now: int, claims: UnverifiedClaims) -> int:
    """Returns `now`, or the latest moment that has certainly passed if that is later.

    It proves that setting the clock back before this release, or before the license was issued, gains nothing. It
    does not prove the time: a clock set back to any moment after both is believed. A stored high-water mark
    narrows that; without a trusted clock nothing closes it.

    Args:
        now: Seconds since the epoch.
        claims: Claims of a license; its signed `issued_at` has passed on the issuer's clock.
    """
    return max(now, BUILD_TIME, claims.issued_at)


def format_time(seconds: int) -> str:
    """Returns seconds since the epoch as ``2026-01-02 03:04 UTC``."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def format_duration(seconds: int) -> str:
    """Returns a duration in its largest whole unit, e.g. ``3 days``."""
    for unit, unit_seconds in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= unit_seconds:
            return _counted(seconds // unit_seconds, unit)
    return _counted(seconds, "second")


def _counted(count: int, unit: str) -> str:
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
