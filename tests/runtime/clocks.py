"""The two clocks of a machine, for tests to set."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass
class Clocks:
    """The wall clock, which can be set, and CLOCK_BOOTTIME, which cannot."""

    wall: float
    boot: float = 1000.0

    def advance(self, seconds: float) -> None:
        self.wall += seconds
        self.boot += seconds

    def read(self, clock: int) -> float:
        return self.wall if clock == time.CLOCK_REALTIME else self.boot
