"""Numbers that rise and never repeat, of licenses and of revocation lists.

A device remembers the highest number it saw and refuses lower ones. So a number is the last one plus one, or the
milliseconds since the epoch if that is more: a ledger that was restored from an old backup, or lost and made anew,
knows nothing of what it issued since, and still goes on above all of it. That holds while fewer than a thousand are
issued a second on the whole, and while the clock is not behind where it was.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from keylatch.keys._clock import BUILD_TIME

if TYPE_CHECKING:
    import sqlite3


def next_license_seq(db: sqlite3.Connection) -> int:
    """Returns the next license's number; call it in the transaction that records the license."""
    return _next(db.execute("SELECT max(seq) FROM licenses").fetchone()[0])


def next_list_seq(db: sqlite3.Connection) -> int:
    """Returns the next revocation list's number; call it in the transaction that records the list."""
    return _next(db.execute("SELECT max(seq) FROM revocation_lists").fetchone()[0])


def _next(last: int | None) -> int:
    return max((last or 0) + 1, time.time_ns() // 1_000_000, BUILD_TIME * 1_000)
