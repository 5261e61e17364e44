"""All or nothing: a block of statements that SQLite keeps whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    import sqlite3

Begin: TypeAlias = Literal["BEGIN", "BEGIN IMMEDIATE"]


@contextlib.contextmanager
def transaction(db: sqlite3.Connection, begin: Begin = "BEGIN IMMEDIATE") -> Iterator[None]:
    """Runs the block in one transaction, and undoes all of it if anything in it raises.

    Args:
        db: A connection without Python's own transactions (``isolation_level=None``).
        begin: ``BEGIN IMMEDIATE`` takes the write lock at once: what the block then reads, nobody else changes.
            ``BEGIN`` reads one state of the file, whatever others write meanwhile.
    """
    db.execute(begin)
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        # After some errors, a full disk among them, SQLite has already undone it (sqlite.org/lang_transaction.html).
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
