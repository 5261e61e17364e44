"""Whose word a license carries: its own, or that of the first license in its chain of renewals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

    from keylatch.keys._ledger._ledger import Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """Licenses of one model that carry the same word.

    Attributes:
        mark: The id of the first one.
        customer: To whom they were sold.
        licenses: Their ids, in the order they were issued.
    """

    mark: str
    customer: str
    licenses: tuple[str, ...]


def mark_of(db: sqlite3.Connection, license_id: str) -> str:
    """The first license in a chain of renewals."""
    return str(db.execute(_FIRST, (license_id,)).fetchone()[0])


def list_marks(ledger: Ledger, model_id: str) -> list[Marked]:
    """All words that licenses of a model carry, in the order they were first issued.

    Args:
        ledger: The issuer's record.
        model_id: SHA-256 of the model's manifest, 64 hex digits.
    """
    with ledger.reading() as db:
        rows = db.execute(_LICENSES, (model_id,)).fetchall()
        chains: dict[str, list[str]] = {}
        for row in rows:
            chains.setdefault(mark_of(db, row["license_id"]), []).append(row["license_id"])
    customers = {row["license_id"]: row["customer"] for row in rows}
    return [Marked(mark=mark, customer=customers[mark], licenses=tuple(ids)) for mark, ids in chains.items()]


_LICENSES = "SELECT license_id, customer FROM licenses WHERE model_id = ? ORDER BY seq"
_FIRST = """
    WITH RECURSIVE chain (license_id, renews) AS (
        SELECT license_id, renews FROM licenses WHERE license_id = ?
        UNION ALL
        SELECT earlier.license_id, earlier.renews FROM licenses AS earlier JOIN chain
            ON earlier.license_id = chain.renews)
    SELECT license_id FROM chain WHERE renews IS NULL
"""
