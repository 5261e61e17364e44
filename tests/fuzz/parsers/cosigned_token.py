"""A token with two signatures, on a device that demands both: also with an issuer's key that was broken."""

from __future__ import annotations

import hashlib

from fuzz.attempts import REFUSED, attempt, must_refuse, require
from fuzz.byte_source import ByteSource
from fuzz.harnesses import DECISIONS, Harness
from fuzz.mutations import changed_json
from fuzz.originals import COSIGNED_TRUST, ISSUER, TRUST, original
from fuzz.token_mutations import changed_token, decoded, unpadded
from keylatch.errors import FormatError, SignatureError
from keylatch.keys import canonical_json, parse_json_object, parse_license
from keylatch.keys._cosignature import verify_cosignature
from keylatch.keys._token import verify_claims

_NAMES = ("license.cosigned", "license.cosigned.other", "license.cosigned.foreign")
_TOKENS = [parse_license(original(name)).jwt for name in _NAMES]
# An original that is refused would make every refusal worthless.
_ACCEPTED = {token for token in _TOKENS[:2] if verify_claims(token, COSIGNED_TRUST)}
_ERRORS = (FormatError, SignatureError)


def _cosigned(payload: bytes) -> bytes:
    """What a cosigner signs of a payload."""
    claims = parse_json_object(payload, "payload")
    return canonical_json({name: value for name, value in claims.items() if name != "cosignature_sha256"})


_COSIGNED = {_cosigned(decoded(token.split(b".")[1])) for token in _TOKENS[:2]}


def parse(data: bytes) -> None:
    must_refuse(attempt(verify_claims, data, COSIGNED_TRUST, errors=_ERRORS), data, _ACCEPTED)
    # A device that demands no second signature takes one as it is, or not at all.
    must_refuse(attempt(verify_claims, data, TRUST, errors=_ERRORS), data, _TOKENS)


def parse_cosignature(data: bytes) -> None:
    payload = next(iter(_COSIGNED))
    outcome = attempt(verify_cosignature, data, payload, COSIGNED_TRUST.cosigners, errors=_ERRORS)
    require(outcome is REFUSED or data in {token.partition(b"~")[2] for token in _TOKENS}, "a forged cosignature")


def verify_changed(data: bytes) -> None:
    source = ByteSource(data)
    parts, others = (source.choose(_TOKENS).split(b"~") for _ in range(2))
    index = source.below(2)
    match source.below(5):
        case 0:
            parts[index] = others[index]
        case 1:
            parts = parts[:1]
        case 2:
            parts.insert(source.below(3), others[index])
        case _:
            parts[index] = changed_token(source, parts[index], others[index])
    parse(b"~".join(parts))


def verify_signed_by_issuer(data: bytes) -> None:
    """Whoever broke the issuer's key signs what he likes, and has only the cosignatures that were given out."""
    source = ByteSource(data)
    token, other = source.choose(_TOKENS), source.choose(_TOKENS)
    header, payload, *_ = token.partition(b"~")[0].split(b".")
    cosignature = source.choose((token, other)).partition(b"~")[2]
    if source.below(4) == 0:
        cosignature = changed_token(source, cosignature, other.partition(b"~")[2])
    edited = decoded(payload)
    if source.below(4):
        edited = changed_json(source, edited, decoded(other.split(b".")[1]))
    claims = attempt(parse_json_object, edited, "payload", errors=FormatError)
    if claims is REFUSED:
        return
    claims["cosignature_sha256"] = hashlib.sha256(cosignature).hexdigest()
    signed = header + b"." + unpadded(canonical_json(claims))
    forged = signed + b"." + unpadded(ISSUER.sign(signed)) + b"~" + cosignature
    if attempt(verify_claims, forged, COSIGNED_TRUST, errors=_ERRORS) is not REFUSED:
        require(_cosigned(canonical_json(claims)) in _COSIGNED, "claims that no cosigner signed were accepted")


HARNESS = Harness(
    attacks=(parse, parse_cosignature, verify_changed, verify_signed_by_issuer),
    seeds=(
        tuple(_TOKENS),
        tuple(token.partition(b"~")[2] for token in _TOKENS),
        DECISIONS,
        DECISIONS,
    ),
    words=(b"~", b"..", b'"ML-DSA-65"', b'"keylatch-cosignature"', b'"alg"', b'"typ"', b'"kid"'),
)
