"""The clock floor: the earliest that "now" can be, whatever the clock says."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from keylatch.errors import ClockUnreadableError

# 2026-11-20T00:00:00Z, seconds since the epoch: this code did not exist before.
BUILD_TIME = 1_795_132_800
# 9999-12-31T23:59:59Z, the last second a calendar library can print.
MAX_TIME = 253_402_300_799


def current_time() -> int:
    """Returns the system clock in whole seconds since the epoch, at least `BUILD_TIME`.

    Raises:
        ClockUnreadableError: The system has no readable clock.
    """
    return max(int(_read_clock(time.CLOCK_REALTIME)), BUILD_TIME)


class RunningClock:
    """A clock that no setting of the system's clock can hold back while a process runs.

    From the moment it starts at, it counts on by CLOCK_BOOTTIME, which goes on while the machine sleeps and which
    nobody can set. A system clock that is ahead of that is believed only while it is: one that was set forward by
    mistake and then right again has ended no license.

    Args:
        moment: What counts as now, in seconds since the epoch.

    Raises:
        ClockUnreadableError: The system has no readable clock.
    """

    __slots__ = ("_boot_seconds", "_moment")

    def __init__(self, moment: int) -> None:
        self._moment = moment
        self._boot_seconds = boot_seconds()

    def now(self) -> int:
        """Returns the system clock, or the moment it started from plus the time since, if that is later.

        Raises:
            ClockUnreadableError: The system has no readable clock.
        """
        return max(current_time(), self._moment + int(boot_seconds() - self._boot_seconds))


def boot_seconds() -> float:
    """Returns the seconds since the machine started, time asleep included.

    Raises:
        ClockUnreadableError: The system has no such clock.
    """
    return _read_clock(time.CLOCK_BOOTTIME)


def _read_clock(clock: int) -> float:
    try:
        return time.clock_gettime(clock)
    except OSError as error:
        found = f"the system's clock cannot be read: {error.strerror}"
        raise ClockUnreadableError(found, hint="allow the clock_gettime system call") from None


def clock_floor(now: int, issued_at: int) -> int:
    """Returns `now`, or the latest moment that has certainly passed if that is later.

    It proves that setting the clock back before this release, or before the license was issued, gains nothing. It
    does not prove the time: a clock set back to any moment after both is believed. A stored high-water mark
    narrows that; without a trusted clock nothing closes it.

    Args:
        now: Seconds since the epoch.
        issued_at: A license's signed `issued_at`, which has passed on the issuer's clock.
    """
    return max(now, BUILD_TIME, issued_at)


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
