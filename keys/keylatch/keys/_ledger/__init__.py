"""The issuer's ledger: what was issued, to whom, until when, and what was revoked; one SQLite file.

    _schema         tables, one migration a version
    _transaction    all or nothing
    _sqlite_errors  SQLite's errors as ours
    _ledger         making and opening the file
    _sequence       numbers that never repeat
    _signers        issuer and cosigner keys, active and retired; the trust file they make
    _issuing        a license and its row, together
    _marks          whose word a license carries
    _entries        what the ledger knows of a license
    _finding        licenses, models and devices by part of their name
    _renewing       the same again, until later
    _revoking       revocations, and the signed list of them

It holds customers' names and no secrets: no private key, no secret value, nothing that opens a model. Each license's
file is in it, byte for byte.
"""

from __future__ import annotations

from keylatch.keys._ledger._entries import LedgerEntry, find_entry, list_entries, read_recorded_license
from keylatch.keys._ledger._issuing import KnownDevice, LicensedModel, LicenseTerms, issue_and_record
from keylatch.keys._ledger._ledger import Ledger
from keylatch.keys._ledger._marks import Marked, list_marks
from keylatch.keys._ledger._renewing import renew_license
from keylatch.keys._ledger._revoking import PublishedList, publish_revocations, revoke_device, revoke_license
from keylatch.keys._ledger._signers import check_issuer, rotate_issuer, trust_of_ledger

__all__ = [
    "KnownDevice",
    "Ledger",
    "LedgerEntry",
    "LicenseTerms",
    "LicensedModel",
    "Marked",
    "PublishedList",
    "check_issuer",
    "find_entry",
    "issue_and_record",
    "list_entries",
    "list_marks",
    "publish_revocations",
    "read_recorded_license",
    "renew_license",
    "revoke_device",
    "revoke_license",
    "rotate_issuer",
    "trust_of_ledger",
]
