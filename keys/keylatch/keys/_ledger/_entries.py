"""What the ledger knows of a license: one row, its state, its file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from keylatch.errors import FormatError
from keylatch.keys._ledger._finding import find_customer, find_device, find_license, find_model
from keylatch.keys._license import License, parse_license

if TYPE_CHECKING:
    import sqlite3

    from keylatch.keys._ledger._ledger import Ledger

State: TypeAlias = Literal["valid", "not yet", "expired", "revoked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """A license as recorded. Times are seconds since the epoch.

    Args:
        license_id: UUID, version 4.
        seq: Position in the issuer's order.
        model_id: SHA-256 of the model's manifest.
        model_name: The model's name.
        customer: Whom it was sold to.
        issuer: Thumbprint of the issuer key that signed it.
        issued_at: When it was issued.
        not_before: First second of validity.
        expires_at: First second after validity.
        max_list_age: Age in seconds that a revocation list may have for it; None if it asks for no list.
        renews: The license that this one renews, or None.
        devices: Thumbprints of its devices, sorted.
        sha256: SHA-256 of the license file, hex.
        revoked_at: When it was revoked, or None.
        reason: Why it was revoked, or None.
    """

    license_id: str
    seq: int
    model_id: str
    model_name: str
    customer: str
    issuer: str
    issued_at: int
    not_before: int
    expires_at: int
    max_list_age: int | None
    renews: str | None
    devices: tuple[str, ...]
    sha256: str
    revoked_at: int | None
    reason: str | None

    def state(self, now: int) -> State:
        """Returns what the license is at a moment; revoked goes before all else."""
        if self.revoked_at is not None:
            return "revoked"
        if now >= self.expires_at:
            return "expired"
        return "valid" if now >= self.not_before else "not yet"


def find_entry(ledger: Ledger, name: str) -> LedgerEntry:
    """Returns the license with an id, the beginning of one, or a seq.

    Raises:
        LedgerEntryError: No such license, or more than one.
    """
    with ledger.reading() as db:
        return entry_in(db, find_license(db, name))


def entry_in(db: sqlite3.Connection, license_id: str) -> LedgerEntry:
    """Returns the license with an id that is in the ledger."""
    return _entry(db.execute("SELECT * FROM entries WHERE license_id = ?", (license_id,)).fetchone())


def list_entries(
    ledger: Ledger,
    *,
    model: str | None = None,
    customer: str | None = None,
    device: str | None = None,
    expires_after: int | None = None,
    expires_before: int | None = None,
    revoked: bool | None = None,
) -> list[LedgerEntry]:
    """Returns licenses in the order they were issued.

    Args:
        ledger: The ledger.
        model: Only of the model with this name or beginning of a model_id.
        customer: Only to this customer.
        device: Only to the device with this beginning of a thumbprint.
        expires_after: Only those that end after this moment.
        expires_before: Only those that end before this moment.
        revoked: Only revoked ones, or only others.

    Raises:
        LedgerEntryError: No such model, customer or device, or more than one.
    """
    with ledger.reading() as db:
        wanted = {
            "model": None if model is None else find_model(db, model),
            "customer": None if customer is None else find_customer(db, customer),
            "device": None if device is None else find_device(db, device),
            "expires_after": expires_after,
            "expires_before": expires_before,
            "revoked": revoked,
        }
        return [_entry(row) for row in db.execute(_LIST, wanted)]


_LIST = """
    SELECT * FROM entries
    WHERE (:model IS NULL OR model_id = :model OR model_name = :model)
      AND (:customer IS NULL OR customer = :customer)
      AND (:device IS NULL OR EXISTS (
          SELECT 1 FROM license_devices WHERE license_devices.license_id = entries.license_id AND device = :device))
      AND (:expires_after IS NULL OR expires_at > :expires_after)
      AND (:expires_before IS NULL OR expires_at < :expires_before)
      AND (:revoked IS NULL OR (revoked_at IS NOT NULL) = :revoked)
    ORDER BY seq
"""


def read_recorded_license(ledger: Ledger, license_id: str) -> License:
    """Returns a license's file out of the ledger, byte for byte what was issued.

    Raises:
        FormatError: The ledger's copy is not what was issued.
    """
    with ledger.reading() as db:
        return license_in(db, license_id)


def license_in(db: sqlite3.Connection, license_id: str) -> License:
    """Returns a license's file inside a transaction; raises as `read_recorded_license` does."""
    row = db.execute(
        "SELECT file, sha256 FROM licenses JOIN license_files USING (license_id) WHERE license_id = ?", (license_id,)
    ).fetchone()
    if hashlib.sha256(row["file"]).hexdigest() != row["sha256"]:
        found = f"license {license_id} in the ledger is not the one that was issued: its SHA-256 differs"
        raise FormatError(found, hint="restore the ledger from a backup, or issue the license again")
    return parse_license(row["file"])


def _entry(row: sqlite3.Row) -> LedgerEntry:
    values: dict[str, Any] = dict(row)
    return LedgerEntry(**{**values, "devices": tuple(sorted(values["devices"].split()))})
