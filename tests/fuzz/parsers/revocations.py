"""Revocation lists."""

from __future__ import annotations

import hashlib
import json

from fuzz.attempts import REFUSED, attempt, must_refuse, require
from fuzz.byte_source import ByteSource
from fuzz.harnesses import DECISIONS, Harness
from fuzz.mutations import changed, changed_json
from fuzz.originals import FOREIGN_ISSUER, ISSUER, TRUST, original
from fuzz.token_mutations import changed_token, decoded, unpadded
from keylatch.errors import FormatError, SignatureError
from keylatch.keys import canonical_json, parse_license
from keylatch.keys._revocations import _parse_ids, verify_revocation_list

_LISTS = [original(name) for name in ("revocations", "revocations.other")]
# An original that is refused would make every refusal worthless.
_VERIFIED = [verify_revocation_list(data, TRUST) for data in _LISTS]
# Other things that the same issuer signed.
_FOREIGN_TYPES = [parse_license(original("license")).jwt, original("time.token")]
_ERRORS = (FormatError, SignatureError)


def verify(data: bytes) -> None:
    must_refuse(attempt(verify_revocation_list, data, TRUST, errors=_ERRORS), data, _LISTS)


def verify_changed(data: bytes) -> None:
    source = ByteSource(data)
    listed, other = source.choose(_LISTS), source.choose([*_LISTS, *_FOREIGN_TYPES])
    token, _, lines = listed.partition(b"\n")
    match source.below(4):
        case 0:
            listed = changed(source, listed, other)
        case 1:
            listed = token + b"\n" + changed(source, lines, other.partition(b"\n")[2])
        case 2:
            listed = other.partition(b"\n")[0] + b"\n" + lines
        case _:
            listed = changed_token(source, token, other.partition(b"\n")[0]) + b"\n" + lines
    verify(listed)


def verify_signed(data: bytes) -> None:
    """What the real issuer states, changed; or the ids under a true digest."""
    source = ByteSource(data)
    token, _, lines = source.choose(_LISTS).partition(b"\n")
    header, payload, _ = token.split(b".")
    other = source.choose([*_LISTS, *_FOREIGN_TYPES]).split(b".")[1]
    stated = decoded(payload)
    if source.below(2):
        lines = changed(source, lines, lines)
        stated = canonical_json({**json.loads(stated), "revoked_sha256": hashlib.sha256(lines).hexdigest()})
    else:
        stated = changed_json(source, stated, decoded(other))
    signer = FOREIGN_ISSUER if source.below(8) == 7 else ISSUER
    signed = header + b"." + unpadded(stated)
    listed = signed + b"." + unpadded(signer.sign(signed)) + b"\n" + lines
    parsed = attempt(verify_revocation_list, listed, TRUST, errors=_ERRORS)
    if parsed is not REFUSED:
        require(signer is ISSUER, "a foreign issuer's list was accepted")
        ids = "".join(f"{license_id}\n" for license_id in sorted(parsed.license_ids))
        require(ids.encode() == lines, "a list is not what its lines say")


def parse_ids(data: bytes) -> None:
    ids = attempt(_parse_ids, data, errors=FormatError)
    if ids is not REFUSED:
        require("".join(f"{license_id}\n" for license_id in ids).encode() == data, "ids are not their lines")


HARNESS = Harness(
    attacks=(verify, verify_changed, verify_signed, parse_ids),
    seeds=(tuple(_LISTS), DECISIONS, DECISIONS, tuple(listed.partition(b"\n")[2] for listed in _LISTS)),
    words=(b"\n", b"\r\n", b'"seq"', b'"max_age"', b'"revoked_sha256"', b'"aud"', b'"iss"', b"-4111-8111-", b"."),
)
