"""Revoking licenses, and the signed list that tells devices."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from keylatch.errors import LedgerEntryError, LedgerError
from keylatch.keys._clock import current_time, format_time
from keylatch.keys._issuer_key import IssuerKey
from keylatch.keys._ledger._entries import LedgerEntry, entry_in
from keylatch.keys._ledger._finding import find_device, find_license
from keylatch.keys._ledger._sequence import next_list_seq
from keylatch.keys._ledger._signers import check_active
from keylatch.keys._revocations import sign_revocation_list

if TYPE_CHECKING:
    import sqlite3

    from keylatch.keys._ledger._ledger import Ledger

MAX_REASON_CHARACTERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedList:
    """A signed revocation list.

    Args:
        seq: Its number; a device refuses lists with a lower one than it saw.
        license_count: Licenses on it.
        data: The list's bytes, for its file.
    """

    seq: int
    license_count: int
    data: bytes = field(repr=False)


def revoke_license(ledger: Ledger, name: str, *, reason: str = "") -> LedgerEntry:
    """Revokes one license; devices learn of it from the next revocation list.

    Args:
        ledger: The ledger.
        name: Its id, the beginning of its id, or its seq.
        reason: Why, printable text; stays in the ledger.

    Raises:
        LedgerEntryError: No such license, or more than one.
        LedgerError: It was revoked already, or the reason cannot be kept.
    """
    with ledger.writing() as db:
        license_id = find_license(db, name)
        revoked_at = entry_in(db, license_id).revoked_at
        if revoked_at is not None:
            found = f"license {license_id} was revoked already, at {format_time(revoked_at)}"
            raise LedgerError(found, hint="sign a new list with keylatch license revocations")
        return revoke_in(db, license_id, reason)


def revoke_device(ledger: Ledger, name: str, *, reason: str = "") -> list[LedgerEntry]:
    """Revokes every license of a device that is not revoked or expired; each ends for its other devices too.

    Args:
        ledger: The ledger.
        name: The device's thumbprint, or its beginning.
        reason: Why, printable text; stays in the ledger.

    Raises:
        LedgerEntryError: No such device, more than one, or it has no license left.
        LedgerError: The reason cannot be kept.
    """
    with ledger.writing() as db:
        device = find_device(db, name)
        rows = db.execute(_OF_DEVICE, (device, current_time())).fetchall()
        if not rows:
            found = f"device {device} has no license that is neither revoked nor expired"
            raise LedgerEntryError(found, hint="keylatch license list --device shows its licenses")
        return [revoke_in(db, row["license_id"], reason) for row in rows]


_OF_DEVICE = """
    SELECT license_id FROM license_devices JOIN entries USING (license_id)
    WHERE device = ? AND revoked_at IS NULL AND expires_at > ? ORDER BY seq
"""


def revoke_in(db: sqlite3.Connection, license_id: str, reason: str) -> LedgerEntry:
    """Records a revocation inside a transaction.

    Raises:
        LedgerError: The reason cannot be kept.
    """
    if len(reason) > MAX_REASON_CHARACTERS or not reason.isprintable():
        found = f"the reason is {reason!a:.80}, expected at most {MAX_REASON_CHARACTERS} printable characters"
        raise LedgerError(found, hint="give a short reason on one line")
    db.execute("INSERT INTO revocations VALUES (?, ?, ?)", (license_id, current_time(), reason))
    return entry_in(db, license_id)


def publish_revocations(ledger: Ledger, *, issuer: IssuerKey, max_age: int) -> PublishedList:
    """Signs the list of all licenses that are revoked and not expired, and records that it did.

    An expired license leaves the list: it opens nothing. With the clock set back it could, on a device that remembers
    no time; that device could as well be shown an older list.

    Args:
        ledger: The ledger.
        issuer: Signs the list.
        max_age: How long devices may go by it, in seconds.

    Raises:
        LedgerError: The issuer key is retired or not in this ledger, or the ledger cannot be written.
        FormatError: An argument that no list can carry.
    """
    now = current_time()
    with ledger.writing() as db:
        check_active(db, issuer.public)
        seq, license_ids = next_list_seq(db), [row["license_id"] for row in db.execute(_REVOKED, (now,))]
        data = sign_revocation_list(issuer=issuer, seq=seq, license_ids=license_ids, issued_at=now, max_age=max_age)
        values = (seq, issuer.public.thumbprint, now, len(license_ids))
        db.execute("INSERT INTO revocation_lists VALUES (?, ?, ?, ?)", values)
    return PublishedList(seq=seq, license_count=len(license_ids), data=data)


_REVOKED = """
    SELECT license_id FROM revocations JOIN licenses USING (license_id) WHERE expires_at > ? ORDER BY license_id
"""
