"""The ledger's tables: one script a version, applied in order, each in one transaction.

A script that was released is never edited: ledgers made with it exist. A change is a new script at the end.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from keylatch.errors import FormatError, LedgerError
from keylatch.keys._ledger._transaction import transaction

if TYPE_CHECKING:
    import sqlite3

# "KLdg": tells a ledger from any other SQLite file (sqlite.org/fileformat.html section 1.3.14).
APPLICATION_ID = int.from_bytes(b"KLdg", "big")

# No statement holds a semicolon inside. Files have a table of their own: a row with its file inside takes pages of
# 4 KiB, and listing a hundred thousand licenses would read half a gigabyte.
MIGRATIONS = (
    """
    CREATE TABLE issuers (
        thumbprint TEXT PRIMARY KEY,
        public_key TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        retired_at INTEGER
    ) STRICT;
    CREATE TABLE models (
        model_id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        first_seen INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE customers (
        name TEXT PRIMARY KEY
    ) STRICT;
    CREATE TABLE devices (
        thumbprint TEXT PRIMARY KEY,
        public_key TEXT NOT NULL,
        facts TEXT NOT NULL,
        first_seen INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE licenses (
        license_id TEXT PRIMARY KEY,
        seq INTEGER NOT NULL UNIQUE,
        model_id TEXT NOT NULL REFERENCES models,
        customer TEXT NOT NULL REFERENCES customers,
        issuer TEXT NOT NULL REFERENCES issuers,
        issued_at INTEGER NOT NULL,
        not_before INTEGER NOT NULL,
        expires_at INTEGER NOT NULL,
        max_list_age INTEGER,
        renews TEXT REFERENCES licenses,
        sha256 TEXT NOT NULL
    ) STRICT;
    CREATE TABLE license_files (
        license_id TEXT PRIMARY KEY REFERENCES licenses,
        file BLOB NOT NULL
    ) STRICT;
    CREATE TABLE license_devices (
        license_id TEXT NOT NULL REFERENCES licenses,
        device TEXT NOT NULL REFERENCES devices,
        PRIMARY KEY (license_id, device)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE revocations (
        license_id TEXT PRIMARY KEY REFERENCES licenses,
        revoked_at INTEGER NOT NULL,
        reason TEXT NOT NULL
    ) STRICT;
    CREATE TABLE revocation_lists (
        seq INTEGER PRIMARY KEY,
        issuer TEXT NOT NULL REFERENCES issuers,
        issued_at INTEGER NOT NULL,
        license_count INTEGER NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE cosigners (
        thumbprint TEXT PRIMARY KEY,
        public_key TEXT NOT NULL,
        created_at INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX licenses_by_issuer ON licenses (issuer, expires_at);
    CREATE INDEX license_devices_by_device ON license_devices (device);
    CREATE VIEW entries AS
        SELECT license_id, seq, model_id, models.name AS model_name, customer, issuer, issued_at, not_before,
               expires_at, max_list_age, renews, sha256, revoked_at, reason,
               (SELECT group_concat(device, ' ') FROM license_devices
                WHERE license_devices.license_id = licenses.license_id) AS devices
        FROM licenses JOIN models USING (model_id) LEFT JOIN revocations USING (license_id)
    """,
)
SCHEMA_VERSION = len(MIGRATIONS)


def check_schema(db: sqlite3.Connection, path: Path) -> None:
    """Refuses a SQLite file that is no ledger, or one of a later version; changes nothing.

    Raises:
        FormatError: Not a ledger.
        LedgerError: A later version.
    """
    if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise FormatError(f"{path} is not a ledger", hint="give the file that keylatch issuer init wrote")
    version = _version(db)
    if version > SCHEMA_VERSION:
        found = f"ledger {path} has version {version}, expected at most {SCHEMA_VERSION}"
        raise LedgerError(found, hint="upgrade keylatch")


def migrate(db: sqlite3.Connection) -> None:
    """Brings a ledger to this version, one version at a time; after a crash it stands between two of them."""
    for version, script in enumerate(MIGRATIONS, start=1):
        if _version(db) < version:
            with transaction(db):
                _apply(db, version, script)


def _apply(db: sqlite3.Connection, version: int, script: str) -> None:
    if _version(db) >= version:  # another process was first, while this one waited for the lock
        return
    for statement in script.split(";"):
        db.execute(statement)
    db.execute(f"PRAGMA user_version = {version}")


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])
