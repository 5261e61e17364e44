"""SQLite's errors as ours, by result code; its message texts differ from version to version."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from keylatch.errors import (
    FormatError,
    KeylatchError,
    LedgerBusyError,
    LedgerError,
    LedgerFullError,
    LedgerReadOnlyError,
)

if TYPE_CHECKING:
    import sqlite3

# sqlite.org/rescode.html. Numbers, not sqlite3's names: a device that only runs models need not have sqlite3.
_PERM, _BUSY, _LOCKED, _READONLY, _CORRUPT, _FULL, _CANTOPEN, _NOTADB = 3, 5, 6, 8, 11, 13, 14, 26
# The shared-memory file beside the ledger cannot grow: how a full disk shows when the first page is written.
_IOERR_SHMSIZE = 4874

_BUSY_ANSWER = (LedgerBusyError, "is held by another process", "wait until it is done, then try again")
_READ_ONLY_ANSWER = (
    LedgerReadOnlyError,
    "cannot be written",
    "allow writing to the file and its folder, or work on a copy where that is allowed",
)
_FULL_ANSWER = (LedgerFullError, "has no room: the disk is full, and nothing was recorded", "make room, then try again")
_DAMAGED_ANSWER = (FormatError, "is damaged", "restore it from a backup; numbers go on above all that were issued")

_ANSWERS: dict[int, tuple[type[KeylatchError], str, str]] = {
    _BUSY: _BUSY_ANSWER,
    _LOCKED: _BUSY_ANSWER,
    _READONLY: _READ_ONLY_ANSWER,
    _PERM: _READ_ONLY_ANSWER,
    # The file was there a moment ago: what cannot be opened is its log beside it, in a folder that takes no new files.
    _CANTOPEN: _READ_ONLY_ANSWER,
    _FULL: _FULL_ANSWER,
    _IOERR_SHMSIZE: _FULL_ANSWER,
    _CORRUPT: _DAMAGED_ANSWER,
    _NOTADB: (FormatError, "is not a ledger", "give the file that keylatch issuer init wrote"),
}


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raises SQLite's errors in the block as Keylatch's.

    Raises:
        LedgerBusyError: Another process holds the ledger for longer than the timeout.
        LedgerReadOnlyError: It cannot be written.
        LedgerFullError: The disk is full.
        FormatError: Damaged, or no SQLite file.
        LedgerError: Any other failure of SQLite's, a disk that cannot be read among them.
    """
    import sqlite3

    try:
        yield
    except sqlite3.Error as error:
        # Without a code it is no answer of SQLite's but a mistake in our use of it.
        if getattr(error, "sqlite_errorcode", None) is None:
            raise
        raise _translate(error, path) from None


def _translate(error: sqlite3.Error, path: Path) -> KeylatchError:
    code: int = error.sqlite_errorcode
    unknown = (LedgerError, f"cannot be used: {error.sqlite_errorname}", "check the disk")
    # The low byte is the result, the rest says more about it.
    error_type, found, hint = _ANSWERS.get(code) or _ANSWERS.get(code & 0xFF) or unknown
    return error_type(f"ledger {path} {found}", hint=hint)
