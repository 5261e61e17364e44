"""Write files whole: after a crash there is the old one or the new one, never a part."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

from keylatch.errors import OutputError


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a temporary file in the same folder, and move it to its place; replaces what is there.

    Raises:
        OutputError: It cannot be written.
    """
    # The suffix stays: some writers go by it.
    temporary = path.with_name(f".{secrets.token_hex(8)}{path.suffix}")
    try:
        write(temporary)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}", hint="check the folder and the disk") from None
    finally:
        temporary.unlink(missing_ok=True)


def write_text_whole(path: Path, text: str) -> None:
    """Write a text file, UTF-8.

    Raises:
        OutputError: It cannot be written.
    """
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
