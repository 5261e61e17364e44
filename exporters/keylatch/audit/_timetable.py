"""Share an audit's time out among its cells."""

from __future__ import annotations

from keylatch.audit._clock import Clock

LEAST_SECONDS = 1.0
_LARGEST_RESERVE_SECONDS = 10.0
_RESERVE_SHARE = 0.05
_LONGEST_SECONDS = 1e9  # JSON has no infinity
_CLEARLY_MORE = 1.5


class Timetable:
    """Gives each cell its share of what is left, and keeps back what evaluations and the report take.

    Args:
        clock: Of the whole audit.

    Attributes:
        evaluation_seconds: What measuring one accuracy takes; set as soon as it is known.
        overrun_seconds: By how much a cell stayed longer than it was given, at most.
        later_seconds: Kept back for what comes after the cells.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._reserve_seconds = min(_LARGEST_RESERVE_SECONDS, _RESERVE_SHARE * clock.remaining)
        self.evaluation_seconds = 0.0
        self.overrun_seconds = 0.0
        self.later_seconds = 0.0

    @property
    def free_seconds(self) -> float:
        """What is left for measuring."""
        return self._clock.remaining - self._reserve_seconds

    def share(self, weight: float, weights_left: float, cells_left: int) -> float | None:
        """Seconds for a cell; None if there is no time for it.

        Args:
            weight: The cell's.
            weights_left: Of all cells that still want time, with this one.
            cells_left: How many those are.
        """
        at_most = self.free_seconds - self.evaluation_seconds - self.overrun_seconds
        if at_most < LEAST_SECONDS:
            return None
        shared = self.free_seconds - self.later_seconds - self.evaluation_seconds * cells_left
        return min(at_most, _LONGEST_SECONDS, max(LEAST_SECONDS, shared * weight / weights_left))

    def ran(self, seconds: float, allowed_seconds: float) -> None:
        """Take note of how long a cell really took."""
        self.overrun_seconds = max(self.overrun_seconds, seconds - allowed_seconds)


def is_clearly_more(seconds: float, before_seconds: float) -> bool:
    """Whether a cell that was cut short is worth another try."""
    return seconds >= _CLEARLY_MORE * before_seconds
