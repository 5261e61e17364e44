"""Revocation lists: which licenses an issuer has taken back. A list is one text file.

    header.payload.signature     a statement by the issuer; it names the SHA-256 of everything after this line
    0b5fc0a5-…                   the revoked licenses' ids, one a line, sorted
    …

The ids stand beside the signed token, not in it, for two reasons: a key in an HSM could not sign a payload of
megabytes, and nothing of them is parsed before their digest is right. Whoever wants to know greps for an id.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from keylatch.errors import (
    FormatError,
    LicenseRevokedError,
    RevocationListRequiredError,
    SignatureError,
    StaleRevocationListError,
)
from keylatch.keys._claims import AUDIENCE, MAX_LIST_AGE, MAX_SEQ, Claims
from keylatch.keys._clock import clock_floor, format_duration, format_time
from keylatch.keys._files import PUBLIC_MODE, read_public_file, write_file
from keylatch.keys._issuer_key import IssuerKey
from keylatch.keys._signed_token import TokenType
from keylatch.keys._statement import MAX_STATEMENT_BYTES, StatementType, sign_statement, verify_statement
from keylatch.keys._trust import Trust
from keylatch.keys._value_rules import HEX_DIGEST, whole_number

REVOCATIONS_TOKEN = TokenType("keylatch-revocations+jwt", "revocation list")
# A license ends by itself, and then leaves the list: far more live ones than this are no longer revoked one by one.
MAX_REVOKED = 100_000
# An id and its newline take 37 bytes: 3.7 MB.
MAX_LIST_BYTES = MAX_STATEMENT_BYTES + 1 + 37 * MAX_REVOKED

_KIND = StatementType(
    REVOCATIONS_TOKEN,
    AUDIENCE,
    {
        "seq": whole_number(1, MAX_SEQ),
        "max_age": whole_number(0, MAX_LIST_AGE, "whole seconds"),
        "revoked_sha256": HEX_DIGEST,
    },
)
# The form that claims give a license's id: UUID, version 4, RFC 9562's variant, lower case.
_LINES = re.compile(rb"(?:[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\n)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationList:
    """A list under a trusted issuer's signature. Only `verify_revocation_list` returns one.

    Args:
        issuer: Thumbprint of the issuer key.
        issued_at: Seconds since the epoch.
        seq: Position in the issuer's order of lists; a newer list has a larger one.
        max_age: After this many seconds the list says nothing any more.
        license_ids: The revoked licenses.
    """

    issuer: str
    issued_at: int
    seq: int
    max_age: int
    license_ids: frozenset[str] = field(repr=False)


def sign_revocation_list(
    *, issuer: IssuerKey, seq: int, license_ids: Iterable[str], issued_at: int, max_age: int
) -> bytes:
    """Returns a signed revocation list.

    Args:
        issuer: Signs the list.
        seq: Position in the issuer's order of lists, from 1.
        license_ids: Ids of the revoked licenses, in any order; naming one twice counts once.
        issued_at: Seconds since the epoch.
        max_age: How long the list may be used, in seconds.

    Raises:
        FormatError: More than `MAX_REVOKED` ids, or a value that no list can carry.
    """
    # "?" for what is not ASCII, and " " for a newline: neither stands in an id.
    ids = sorted({license_id.replace("\n", " ") for license_id in license_ids})
    lines = "".join(f"{license_id}\n" for license_id in ids).encode("ascii", "replace")
    _parse_ids(lines)
    values = {"seq": seq, "max_age": max_age, "revoked_sha256": hashlib.sha256(lines).hexdigest()}
    return sign_statement(values, issuer=issuer, issued_at=issued_at, kind=_KIND) + b"\n" + lines


def verify_revocation_list(data: bytes, trust: Trust) -> RevocationList:
    """Returns a list that an issuer key of `trust` signed, one that is not retired.

    Raises:
        LicenseRequiredError: No trusted issuer was given.
        SignatureError: Unsigned, signed in another way, by another issuer or by a retired key; no revocation list; or
            altered.
        FormatError: Too large; or signed, and not a revocation list in this version.
    """
    token, newline, lines = data.partition(b"\n")
    stated = verify_statement(token, trust, _KIND)
    # Without the newline an empty list would have two encodings.
    if not newline:
        raise FormatError("revocation list is truncated", hint="get an undamaged copy of the list")
    if not hmac.compare_digest(hashlib.sha256(lines).hexdigest(), stated["revoked_sha256"]):
        found = "revocation list does not hold the ids that the issuer signed for"
        raise SignatureError(found, hint="get an undamaged copy of the list, or ask the issuer for one")
    return RevocationList(
        issuer=stated["iss"],
        issued_at=stated["iat"],
        seq=stated["seq"],
        max_age=stated["max_age"],
        license_ids=frozenset(_parse_ids(lines)),
    )


def check_revocations(claims: Claims, revocations: RevocationList | None, *, now: int) -> None:
    """Judges a license by the issuer's revocation list.

    A list that is too old is refused even where the license asks for none: whoever gives one relies on it, and what
    was revoked since is not on it. Leaving the list out gains nobody anything there, as the issuer chose not to ask.
    A license on a list that is too old is revoked all the same: nothing takes a revocation back.

    Args:
        claims: Verified claims.
        revocations: A verified list, or None.
        now: Seconds since the epoch; with a device state, the moment that its `check` returned.

    Raises:
        LicenseRevokedError: The license is on the list.
        RevocationListRequiredError: The license asks for a list, and there is none.
        StaleRevocationListError: The list is older than its own `max_age` or the license's `max_list_age` allows.
    """
    if revocations is None:
        if claims.max_list_age is not None:
            found = "license asks for a revocation list, and none was given"
            raise RevocationListRequiredError(found, hint="give the issuer's newest revocation list")
        return
    if claims.license_id in revocations.license_ids:
        found = f"license {claims.license_id} was revoked, says the list of {format_time(revocations.issued_at)}"
        raise LicenseRevokedError(found, hint="ask the issuer for a new license")
    limit = revocations.max_age if claims.max_list_age is None else min(revocations.max_age, claims.max_list_age)
    # The license's issued_at has passed too: a clock set back before it does not make the list younger.
    age = clock_floor(now, claims.issued_at) - revocations.issued_at
    if age > limit:
        found = f"revocation list is {format_duration(age)} old, expected at most {format_duration(limit)}"
        raise StaleRevocationListError(found, hint="get the issuer's newest revocation list")


def read_revocation_list(path: str | os.PathLike[str]) -> bytes:
    """Reads a revocation list file; nothing in it is verified.

    Raises:
        FormatError: Missing, or larger than `MAX_LIST_BYTES`.
    """
    return read_public_file(Path(path), what="revocation list", max_bytes=MAX_LIST_BYTES)


def write_revocation_list(path: str | os.PathLike[str], data: bytes, *, overwrite: bool = False) -> None:
    """Writes a revocation list file atomically.

    Raises:
        OutputError: The file exists (and `overwrite` is off), or it cannot be written.
    """
    write_file(Path(path), data, what="revocation list", mode=PUBLIC_MODE, overwrite=overwrite)


def _parse_ids(lines: bytes) -> list[str]:
    if len(lines) > 37 * MAX_REVOKED:
        found = f"revocation list has more than {MAX_REVOKED} ids"
        raise FormatError(found, hint="leave out the licenses that have ended")
    ids = lines.decode("ascii", "replace").split("\n")[:-1]
    if not _LINES.fullmatch(lines) or any(first >= second for first, second in pairwise(ids)):
        found = "revocation list does not hold different license ids, UUIDs of version 4, sorted, one a line"
        raise FormatError(found, hint="give the ids as the licenses have them")
    return ids
