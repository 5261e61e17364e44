"""A time limit that long work looks at."""

from __future__ import annotations

import math
import time


class Clock:
    """Counts down; monotonic.

    Args:
        seconds: From now on; infinity for no limit.
    """

    __slots__ = ("_end", "_start")

    def __init__(self, seconds: float = math.inf) -> None:
        self._start = time.monotonic()
        self._end = self._start + seconds

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    @property
    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._end - time.monotonic())

    @property
    def expired(self) -> bool:
        """Whether no time is left."""
        return self.remaining <= 0
