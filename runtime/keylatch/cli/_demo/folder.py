"""The folder that a demo makes and may replace."""

from __future__ import annotations

import shutil
from pathlib import Path

from keylatch.errors import OutputError

_MARKER = ".made-by-keylatch-demo"


def prepare_folder(folder: Path) -> None:
    """Make an empty folder; one that a demo made before is replaced.

    Raises:
        OutputError: It is somebody else's, or cannot be made.
    """
    if folder.exists():
        if not (folder / _MARKER).exists():
            raise OutputError(f"{folder} exists and was not made by the demo", hint="choose another --folder")
        shutil.rmtree(folder)
    try:
        folder.mkdir()
        (folder / _MARKER).touch()
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {error.strerror}", hint="choose another --folder") from None
