"""Files that a command will write: looked at before it does anything else."""

from __future__ import annotations

from pathlib import Path

from keylatch.errors import OutputError


def check_free(*paths: Path) -> None:
    """Refuse to start if a file to be written stands there already, or has no folder.

    Raises:
        OutputError: So it is.
    """
    for path in paths:
        if path.exists():
            raise OutputError(f"{path} exists already", hint="choose another name")
        if not path.parent.is_dir():
            raise OutputError(f"{path} has no folder to stand in", hint=f"make {path.parent} first")
