"""Text files written whole: after a crash there is the old one or the new one, never a part."""

from __future__ import annotations

from pathlib import Path

from keylatch.keys._files import write_file

_MODE = 0o644


def write_text_whole(path: Path, text: str, *, what: str) -> None:
    """Write a text file, UTF-8; one that stands there is replaced in one step.

    Raises:
        OutputError: It cannot be written.
    """
    write_file(path, text.encode(), what=what, mode=_MODE, overwrite=True)
