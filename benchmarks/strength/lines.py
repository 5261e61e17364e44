"""Progress of an audit in a benchmark."""

from __future__ import annotations

import sys


class Lines:
    """Progress as lines on stderr."""

    def begins(self, title: str, done: int, total: int) -> None:
        """A measurement begins."""
        print(f"  {done}/{total} {title}", file=sys.stderr, flush=True)

    def notes(self, text: str) -> None:
        """Something that is worth saying."""
        print(f"  {text}", file=sys.stderr, flush=True)
