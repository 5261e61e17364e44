"""Files that a command will write: looked at before it does anything else."""

from __future__ import annotations

import os
from pathlib import Path

from keylatch.errors import OutputError


def check_free(*paths: Path, hint: str = "choose another name") -> None:
    """Refuse to start if a file to be written stands there already, or where none can be written.

    Args:
        paths: The files.
        hint: What else than replacing a file the user can do.

    Raises:
        OutputError: So it is.
    """
    for path in paths:
        if path.exists():
            raise OutputError(f"{path} exists already", hint=hint)
        if not path.parent.is_dir():
            raise OutputError(
                f"{path} cannot be written: there is no folder {path.parent}", hint="make the folder first"
            )
        if not os.access(path.parent, os.W_OK | os.X_OK):
            found = f"{path} cannot be written: the folder {path.parent} does not allow it"
            raise OutputError(found, hint="choose another folder, or allow writing there")
