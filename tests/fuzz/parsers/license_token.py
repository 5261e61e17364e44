"""The license's JWT and the claims in it."""

from __future__ import annotations

from typing import Any

from fuzz.attempts import REFUSED, attempt, must_refuse, require
from fuzz.byte_source import ByteSource
from fuzz.harnesses import DECISIONS, Harness
from fuzz.mutations import changed_json
from fuzz.originals import FOREIGN_ISSUER, ISSUER, TRUST, original
from fuzz.token_mutations import changed_token, decoded, unpadded
from keylatch.errors import FormatError, SignatureError
from keylatch.keys import Claims, UnverifiedClaims, canonical_json, parse_json_object, parse_license
from keylatch.keys._claims import parse_claims
from keylatch.keys._token import read_claims_unverified, verify_claims

_NAMES = ("license", "license.other", "license.shared", "license.hybrid", "license.foreign", "license.cosigned")
_TOKENS = [parse_license(original(name)).jwt for name in _NAMES]
_ACCEPTED = {token for name, token in zip(_NAMES, _TOKENS, strict=True) if name != "license.foreign"}
# An original that is refused would make every refusal worthless.
_CLAIMS = [verify_claims(token, TRUST) for token in _ACCEPTED]
_ERRORS = (FormatError, SignatureError)


def parse(data: bytes) -> None:
    attempt(read_claims_unverified, data, errors=_ERRORS)
    outcome = attempt(verify_claims, data, TRUST, errors=_ERRORS)
    must_refuse(outcome, data, _ACCEPTED)


def verify_changed(data: bytes) -> None:
    source = ByteSource(data)
    token = changed_token(source, source.choose(_TOKENS), source.choose(_TOKENS))
    attempt(read_claims_unverified, token, errors=_ERRORS)
    must_refuse(attempt(verify_claims, token, TRUST, errors=_ERRORS), token, _ACCEPTED)


def verify_signed(data: bytes) -> None:
    """Header and payload changed, then signed by the real issuer or another one."""
    source = ByteSource(data)
    (header, payload, *_), other = source.choose(_TOKENS).split(b"."), source.choose(_TOKENS).split(b".")
    if source.below(4) == 0:
        header = unpadded(changed_json(source, decoded(header), decoded(other[0])))
    payload = unpadded(changed_json(source, decoded(payload), decoded(other[1])))
    signer = FOREIGN_ISSUER if source.below(8) == 7 else ISSUER
    signed = header + b"." + payload
    claims = attempt(verify_claims, signed + b"." + unpadded(signer.sign(signed)), TRUST, errors=_ERRORS)
    if claims is not REFUSED:
        require(signer is ISSUER, "a foreign issuer's token was accepted")
        _check_claims(claims, parse_json_object(decoded(payload), "payload"))


def read_claims(data: bytes) -> None:
    """Claims without the token around them."""
    payload = attempt(parse_json_object, data, "payload", errors=FormatError)
    if payload is not REFUSED:
        for kind in (UnverifiedClaims, Claims):
            claims = attempt(parse_claims, payload, kind, errors=_ERRORS)
            if claims is not REFUSED:
                _check_claims(claims, payload)


def read_changed_claims(data: bytes) -> None:
    source = ByteSource(data)
    payload, other = (decoded(source.choose(_TOKENS).split(b".")[1]) for _ in range(2))
    read_claims(changed_json(source, payload, other))


def _check_claims(claims: UnverifiedClaims, payload: dict[str, Any]) -> None:
    require(claims.to_payload() == payload, "claims are not their payload")
    require(canonical_json(claims.to_payload()) == canonical_json(payload), "claims serialize to something else")
    require(claims.expires_at > max(claims.issued_at, claims.not_before), "claims end before they begin")


HARNESS = Harness(
    attacks=(parse, verify_changed, verify_signed, read_claims, read_changed_claims),
    seeds=(
        tuple(_TOKENS[:4]),
        DECISIONS,
        DECISIONS,
        tuple(decoded(token.split(b".")[1]) for token in _TOKENS[:4]),
        DECISIONS,
    ),
    words=(b'"alg"', b'"none"', b'"kid"', b'"exp"', b'"cnf"', b'"jkt"', b'"max_list_age"', b"null", b"~", b".", b"..",
           b'"cosignature_sha256"', b'"aud":"keylatch-runtime"', b'"keylatch":1', b"1.0", b"\\ud800", b'"seq"'),
)  # fmt: skip
