"""Stain commitments: an issuer states, with a date, that it has a stain, and gives nothing of it away.

Anybody can write a stain of his own into a network that he holds. What he cannot do is show one that was committed to
earlier. The digest covers the whole secret with 32 random bytes, so that it tells nothing until the secret is shown.

The date is the issuer's own claim: its clock says so under its signature. To hold against somebody who doubts it, the
commitment has to be deposited when it is made, where others date it: with a notary, a time-stamping service (RFC 3161),
a public log, or the customer.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from keylatch.errors import FormatError
from keylatch.keys._files import PUBLIC_MODE, read_public_file, write_file
from keylatch.keys._issuer_key import IssuerKey
from keylatch.keys._signed_token import TokenType
from keylatch.keys._statement import MAX_STATEMENT_BYTES, StatementType, sign_statement, verify_statement
from keylatch.keys._trust import Trust
from keylatch.keys._value_rules import HEX_DIGEST

COMMITMENT_TOKEN = TokenType("keylatch-stain+jwt", "stain commitment")
AUDIENCE = "keylatch-stain"

_KIND = StatementType(COMMITMENT_TOKEN, AUDIENCE, {"sha256": HEX_DIGEST})


@dataclass(frozen=True, slots=True)
class StainCommitment:
    """A commitment under a trusted issuer's signature. Only `verify_stain_commitment` returns one.

    Args:
        issuer: Thumbprint of the issuer key.
        issued_at: Seconds since the epoch, by the issuer's clock.
        digest: SHA-256 of the stain's secret, 64 hex digits.
    """

    issuer: str
    issued_at: int
    digest: str


def sign_stain_commitment(*, issuer: IssuerKey, digest: str, issued_at: int) -> bytes:
    """Returns a dated, signed commitment.

    Args:
        issuer: Signs it.
        digest: SHA-256 of the stain's secret, 64 hex digits.
        issued_at: Now, seconds since the epoch.

    Raises:
        FormatError: A digest or time of another form.
    """
    return sign_statement({"sha256": digest}, issuer=issuer, issued_at=issued_at, kind=_KIND)


def verify_stain_commitment(data: bytes, trust: Trust, digest: str) -> StainCommitment:
    """Returns what an issuer key of `trust`, one that is not retired, committed to, if it is this stain.

    Raises:
        LicenseRequiredError: No trusted issuer was given.
        SignatureError: Unsigned, signed in another way, by another issuer or by a retired key; no stain commitment; or
            altered.
        FormatError: Too large; signed, and not a commitment in this version; or to another stain.
    """
    stated = verify_statement(data, trust, _KIND)
    if stated["sha256"] != digest:
        found = f"stain commitment is to {stated['sha256'][:8]}…, expected {digest[:8]}…"
        raise FormatError(found, hint="give the commitment that was made for this stain's secret")
    return StainCommitment(stated["iss"], stated["iat"], digest)


def read_stain_commitment(path: str | os.PathLike[str]) -> bytes:
    """Reads a commitment file; nothing in it is verified.

    Raises:
        FormatError: Missing or too large.
    """
    # One byte more for the newline that an editor or a shell leaves.
    data = read_public_file(Path(path), what="stain commitment", max_bytes=MAX_STATEMENT_BYTES + 1)
    return data.removesuffix(b"\n")


def write_stain_commitment(path: str | os.PathLike[str], data: bytes, *, overwrite: bool = False) -> None:
    """Writes a commitment file; it holds no secret.

    Raises:
        OutputError: The file exists (and `overwrite` is off), or it cannot be written.
    """
    write_file(Path(path), data, what="stain commitment", mode=PUBLIC_MODE, overwrite=overwrite)
