"""A counter that cannot be turned back: what tells a restored file from the newest one."""

from __future__ import annotations

from typing import Protocol


class MonotonicCounter(Protocol):
    """A counter in hardware that only ever rises, even when it is deleted and made again."""

    def read(self) -> int:
        """Returns the count."""
        ...

    def increment(self) -> int:
        """Adds one and returns the new count."""
        ...
