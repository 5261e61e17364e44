"""Licenses, models and devices by part of their name, as people type them; never a guess between two."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keylatch.errors import LedgerEntryError

if TYPE_CHECKING:
    import sqlite3

# Longer than any seq, and within SQLite's integers.
_MAX_SEQ_DIGITS = 16
_SHOWN = 3


def find_license(db: sqlite3.Connection, name: str) -> str:
    """Returns the license_id that a seq, an id or the beginning of an id stands for.

    Raises:
        LedgerEntryError: None or several.
    """
    if name.isascii() and name.isdecimal() and len(name) <= _MAX_SEQ_DIGITS:
        row = db.execute("SELECT license_id FROM licenses WHERE seq = ?", (int(name),)).fetchone()
        if row is not None:
            return str(row[0])
    statement = "SELECT license_id FROM licenses WHERE substr(license_id, 1, ?) = ? LIMIT ?"
    return _find(db, statement, name.lower(), "license")


def find_model(db: sqlite3.Connection, name: str) -> str:
    """Returns a model's name as it is, or the model_id that the beginning of one stands for.

    Raises:
        LedgerEntryError: None or several.
    """
    if name.isprintable() and db.execute("SELECT 1 FROM models WHERE name = ?", (name,)).fetchone():
        return name
    return _find(db, "SELECT model_id FROM models WHERE substr(model_id, 1, ?) = ? LIMIT ?", name, "model")


def find_device(db: sqlite3.Connection, name: str) -> str:
    """Returns the thumbprint that the beginning of one stands for.

    Raises:
        LedgerEntryError: None or several.
    """
    return _find(db, "SELECT thumbprint FROM devices WHERE substr(thumbprint, 1, ?) = ? LIMIT ?", name, "device")


def find_customer(db: sqlite3.Connection, name: str) -> str:
    """Returns a customer's name as it is.

    Raises:
        LedgerEntryError: No such customer.
    """
    # Only printable names get in, and what is not printable may be no text that SQLite takes at all.
    if name.isprintable() and db.execute("SELECT 1 FROM customers WHERE name = ?", (name,)).fetchone():
        return name
    raise _no_such("customer", name)


def _find(db: sqlite3.Connection, statement: str, name: str, what: str) -> str:
    # Ids are ASCII; an empty beginning is that of all of them.
    rows = db.execute(statement, (len(name), name, _SHOWN + 1)).fetchall() if name and name.isascii() else []
    found = [str(row[0]) for row in rows]
    if len(found) == 1:
        return found[0]
    if not found:
        raise _no_such(what, name)
    shown = ", ".join(found[:_SHOWN]) + (" and others" if len(found) > _SHOWN else "")
    raise LedgerEntryError(f"{ascii(name)[1:-1]} could be {what} {shown}", hint=f"give more of the {what}'s id")


def _no_such(what: str, name: str) -> LedgerEntryError:
    hint = "keylatch license list shows what is in the ledger"
    return LedgerEntryError(f"ledger has no {what} {ascii(name)[1:-1]:.80}", hint=hint)
