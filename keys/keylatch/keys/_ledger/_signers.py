"""The keys that sign: one active issuer key, retired ones, cosigners; and the trust file they make together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keylatch.errors import LedgerError
from keylatch.keys._clock import current_time, format_time
from keylatch.keys._cosignature import CosignerPublicKey
from keylatch.keys._encoding import canonical_json, parse_json_object
from keylatch.keys._issuer_key import IssuerPublicKey
from keylatch.keys._trust import Trust

if TYPE_CHECKING:
    import sqlite3

    from keylatch.keys._ledger._ledger import Ledger


def record_issuer(db: sqlite3.Connection, issuer: IssuerPublicKey, now: int) -> None:
    """Records an issuer key as active."""
    values = (issuer.thumbprint, canonical_json(issuer.to_jwk()).decode(), now)
    db.execute("INSERT INTO issuers (thumbprint, public_key, created_at) VALUES (?, ?, ?)", values)


def record_cosigner(db: sqlite3.Connection, cosigner: CosignerPublicKey, now: int) -> None:
    """Records a cosigner key, if it is not there yet."""
    values = (cosigner.thumbprint, canonical_json(cosigner.to_jwk()).decode(), now)
    db.execute("INSERT INTO cosigners VALUES (?, ?, ?) ON CONFLICT DO NOTHING", values)


def check_active(db: sqlite3.Connection, issuer: IssuerPublicKey) -> None:
    """Refuses an issuer key that must not sign.

    Raises:
        LedgerError: Retired, or not in this ledger.
    """
    rows = db.execute("SELECT thumbprint, retired_at FROM issuers").fetchall()
    retired = {row["thumbprint"]: row["retired_at"] for row in rows}
    present = ", ".join(thumbprint for thumbprint, moment in retired.items() if moment is None)
    if issuer.thumbprint not in retired:
        found = f"issuer key {issuer.thumbprint} is not in this ledger, expected {present}"
        raise LedgerError(found, hint="give this key's own ledger, or the key of this one")
    moment = retired[issuer.thumbprint]
    if moment is not None:
        found = f"issuer key {issuer.thumbprint} retired at {format_time(moment)} and signs nothing any more"
        raise LedgerError(found, hint=f"sign with the present key, {present}")


def check_issuer(ledger: Ledger, issuer: IssuerPublicKey) -> None:
    """Refuses an issuer key that must not sign, before anything is made for it.

    Raises:
        LedgerError: Retired, or not in this ledger.
    """
    with ledger.reading() as db:
        check_active(db, issuer)


def rotate_issuer(ledger: Ledger, *, old: IssuerPublicKey, new: IssuerPublicKey) -> int | None:
    """Retires an issuer key and records its successor, in one transaction.

    Returns:
        When the old key's last license ends, seconds since the epoch; until then devices must trust both. None if it
        issued nothing.

    Raises:
        LedgerError: The old key is retired or not in this ledger, or the new one is in it already.
    """
    now = current_time()
    with ledger.writing() as db:
        check_active(db, old)
        if db.execute("SELECT 1 FROM issuers WHERE thumbprint = ?", (new.thumbprint,)).fetchone():
            raise LedgerError(f"issuer key {new.thumbprint} is in this ledger already", hint="make a new key")
        db.execute("UPDATE issuers SET retired_at = ? WHERE thumbprint = ?", (now, old.thumbprint))
        record_issuer(db, new, now)
        return _last_expiry(db, old.thumbprint)


def trust_of_ledger(ledger: Ledger, *, cosigners: bool = True) -> Trust:
    """Returns whom a device should trust: the active key, and retired ones as long as a license of theirs runs.

    Args:
        ledger: The ledger.
        cosigners: Also demand the second signature, if the ledger knows cosigners.

    Raises:
        FormatError: More keys than a trust file holds.
    """
    now = current_time()
    with ledger.reading() as db:
        issuers = db.execute("SELECT * FROM issuers ORDER BY created_at, rowid").fetchall()
        ends = {row["thumbprint"]: _last_expiry(db, row["thumbprint"]) or 0 for row in issuers if row["retired_at"]}
        second = db.execute("SELECT public_key FROM cosigners ORDER BY created_at, rowid").fetchall()
    kept = [row for row in issuers if ends.get(row["thumbprint"], now + 1) > now]
    return Trust(
        [IssuerPublicKey.from_jwk(parse_json_object(row["public_key"].encode(), "issuer key")) for row in kept],
        [CosignerPublicKey.from_jwk(parse_json_object(row[0].encode(), "cosigner key")) for row in second if cosigners],
        {row["thumbprint"]: ends[row["thumbprint"]] for row in kept if row["thumbprint"] in ends},
    )


def _last_expiry(db: sqlite3.Connection, thumbprint: str) -> int | None:
    end: int | None = db.execute("SELECT max(expires_at) FROM licenses WHERE issuer = ?", (thumbprint,)).fetchone()[0]
    return end
