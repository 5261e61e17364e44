"""The ledger as a file: making it, opening it, and transactions on it.

SQLite with a write-ahead log: one process writes, any number read, and a commit is on the disk before it returns. The
log stands beside the file as ``-wal`` and ``-shm`` while someone has it open, so the folder must be writable too, and
must not be on a network file system (sqlite.org/wal.html).
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from keylatch.errors import LedgerError, LedgerMissingError
from keylatch.keys._clock import current_time
from keylatch.keys._cosignature import CosignerPublicKey
from keylatch.keys._files import PRIVATE_MODE, write_file
from keylatch.keys._issuer_key import IssuerPublicKey
from keylatch.keys._ledger._schema import APPLICATION_ID, check_schema, migrate
from keylatch.keys._ledger._signers import record_cosigner, record_issuer
from keylatch.keys._ledger._sqlite_errors import translated
from keylatch.keys._ledger._transaction import Begin, transaction

if TYPE_CHECKING:
    import sqlite3

TIMEOUT_SECONDS = 10.0
# The first with STRICT tables.
_SQLITE_VERSION = (3, 37)


class Ledger:
    """An open ledger; a context manager that closes it.

    What is read and written goes through functions that take a ledger: `issue_and_record`, `list_entries` and so on.
    """

    __slots__ = ("_db", "path")

    def __init__(self, path: Path, db: sqlite3.Connection) -> None:
        self.path = path
        self._db = db

    @classmethod
    def create(
        cls, path: str | os.PathLike[str], issuer: IssuerPublicKey, *, cosigner: CosignerPublicKey | None = None
    ) -> Self:
        """Makes a ledger for an issuer key, with mode 0600, and opens it; refuses to overwrite.

        It is made in memory and written at once: after a crash there is a whole ledger, or none.

        Raises:
            OutputError: The file exists or cannot be written.
            LedgerError: This Python's SQLite is too old.
        """
        write_file(Path(path), _empty(issuer, cosigner), what="ledger", mode=PRIVATE_MODE)
        return cls.open(path)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, timeout_seconds: float = TIMEOUT_SECONDS) -> Self:
        """Opens a ledger, and brings it to this version; never makes one.

        Args:
            path: The file.
            timeout_seconds: How long to wait while another process writes.

        Raises:
            LedgerMissingError: No such file.
            LedgerBusyError: Another process holds it for longer than the timeout.
            LedgerReadOnlyError: It cannot be written.
            FormatError: Not a ledger, or damaged.
            LedgerError: A link, another user's, open to others, of a later version, or SQLite is too old.
        """
        file = Path(path)
        _check_file(file)
        with translated(file):
            db = _connect(file.absolute().as_uri() + "?mode=rw", timeout_seconds)
            try:
                _prepare(db, file)
            except BaseException:
                db.close()
                raise
        return cls(file, db)

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Runs the block in one transaction that nobody else writes beside; raises as `open` does, and if it is full.

        Raises:
            LedgerFullError: The disk is full; nothing was recorded.
        """
        with self._transaction("BEGIN IMMEDIATE") as db:
            yield db

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Runs the block on one state of the ledger, whatever others write meanwhile; raises as `open` does."""
        with self._transaction("BEGIN") as db:
            yield db

    @contextlib.contextmanager
    def _transaction(self, begin: Begin) -> Iterator[sqlite3.Connection]:
        with translated(self.path), transaction(self._db, begin):
            yield self._db

    def close(self) -> None:
        """Closes the ledger; the last one to close it moves the log into the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Ledger({str(self.path)!r})"


def _connect(database: str, timeout_seconds: float = TIMEOUT_SECONDS) -> sqlite3.Connection:
    import sqlite3

    if sqlite3.sqlite_version_info < _SQLITE_VERSION:
        expected = ".".join(map(str, _SQLITE_VERSION))
        found = f"this Python has SQLite {sqlite3.sqlite_version}, expected {expected} or newer"
        raise LedgerError(found, hint="use a Python with a newer SQLite")
    # isolation_level=None: transactions are ours, not Python's.
    db = sqlite3.connect(database, timeout=timeout_seconds, isolation_level=None, uri=True)
    db.row_factory = sqlite3.Row
    return db


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    check_schema(db, path)
    # Nothing in a file that someone else may have had can call functions of ours (sqlite.org/security.html).
    db.execute("PRAGMA trusted_schema = OFF")
    db.execute("PRAGMA journal_mode = WAL")
    # FULL: with less, a power cut could take back a license whose file is out already.
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA foreign_keys = ON")
    migrate(db)


def _empty(issuer: IssuerPublicKey, cosigner: CosignerPublicKey | None) -> bytes:
    with contextlib.closing(_connect(":memory:")) as db:
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        migrate(db)
        now = current_time()
        record_issuer(db, issuer, now)
        if cosigner is not None:
            record_cosigner(db, cosigner, now)
        return db.serialize()


def _check_file(path: Path) -> None:
    # For accidents: SQLite opens the path itself, so whoever can write the folder could still exchange the file.
    try:
        status = path.lstat()
    except FileNotFoundError:
        hint = "make one with keylatch issuer init or keylatch issuer ledger, or name it with --ledger"
        raise LedgerMissingError(f"ledger {path} does not exist", hint=hint) from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = error.strerror if isinstance(error, OSError) else "not a usable path"
        raise LedgerError(f"ledger {path} cannot be opened: {reason}", hint="check the path") from None
    if not stat.S_ISREG(status.st_mode):
        raise LedgerError(f"ledger {path} is not a regular file", hint="name the file itself")
    if status.st_uid != os.geteuid():
        found = f"ledger {path} belongs to user {status.st_uid}, expected user {os.geteuid()}"
        raise LedgerError(found, hint=f"chown {os.geteuid()} {path}")
    if status.st_mode & 0o077:
        found = f"ledger {path} is open to other users: mode {status.st_mode & 0o777:04o}, expected 0600"
        raise LedgerError(found, hint=f"chmod 600 {path}")
