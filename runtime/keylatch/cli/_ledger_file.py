"""Which ledger a command means, and opening it."""

from __future__ import annotations

from pathlib import Path

from keylatch.errors import LedgerMissingError
from keylatch.keys import Ledger, split_key_uri
from keylatch.keys._file_device_key import file_location

DEFAULT_ISSUER = "issuer.key"


def open_ledger(ledger: Path | None, issuer: str | None = None) -> Ledger:
    """Open the ledger that is named, or else the issuer key's own; never makes one.

    That is the one named after the key, ``issuer.ledger`` for ``issuer.key``. If there is none, as after a rotation to
    ``issuer-2.key``, it is the only ledger in the key's folder. A ledger that does not know the key refuses it.

    Args:
        ledger: The file, or None.
        issuer: The issuer key's URI; by default ``issuer.key`` in the working directory.

    Raises:
        LedgerMissingError: There is none, or it is not clear which.
    """
    return Ledger.open(ledger or _ledger_of(issuer or DEFAULT_ISSUER))


def ledger_named_after(issuer: str) -> Path:
    """The path of a new ledger for an issuer key: beside a file; for other keys `issuer.ledger` right here."""
    scheme, location = split_key_uri(issuer)
    return Path(file_location(location) if scheme == "file" else DEFAULT_ISSUER).with_suffix(".ledger")


def _ledger_of(issuer: str) -> Path:
    named = ledger_named_after(issuer)
    if named.exists():
        return named
    others = sorted(named.parent.glob("*.ledger"))
    if len(others) > 1:
        found = f"ledger {named} does not exist, and it is not clear which is meant: {', '.join(map(str, others))}"
        raise LedgerMissingError(found, hint="name it with --ledger")
    return others[0] if others else named
