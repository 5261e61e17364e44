"""Tokens signed by an issuer: compact JWS with Ed25519 (RFC 7515, RFC 9864), one accepted form for each type.

The header may say one thing only. Whatever else JOSE offers there (other algorithms, keys and addresses of keys in
the header, critical extensions) has been used to forge tokens (RFC 8725 section 2), so none of it is read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from keylatch.errors import FormatError, LicenseRequiredError, SignatureError
from keylatch.keys._encoding import canonical_json, decode_base64url, encode_base64url, parse_json_object
from keylatch.keys._issuer_key import IssuerKey, IssuerPublicKey

# RFC 9864's name; "EdDSA" leaves the curve open and is deprecated there.
ALGORITHM = "Ed25519"
SIGNATURE_BYTES = 64

_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class TokenType:
    """One kind of signed token: a license is no time token, whatever it says (RFC 8725 section 3.11).

    Args:
        media_type: The header's ``typ``.
        name: What messages call it, e.g. ``"license"``.
    """

    media_type: str
    name: str


class VerifiedToken(NamedTuple):
    """What a trusted issuer signed."""

    issuer: IssuerPublicKey
    payload: dict[str, Any]


class _Token(NamedTuple):
    key_id: str
    payload: bytes


def sign_token(payload: dict[str, Any], issuer: IssuerKey, kind: TokenType) -> bytes:
    """Returns a payload as a signed compact JWS."""
    header = {"alg": ALGORITHM, "typ": kind.media_type, "kid": issuer.public.thumbprint}
    parts = (encode_base64url(canonical_json(part)).encode("ascii") for part in (header, payload))
    signed = b".".join(parts)
    # Not through joserfc: an issuer key may be in an HSM, and signs bytes.
    return signed + b"." + encode_base64url(issuer.sign(signed)).encode("ascii")


def verify_token(token: bytes, issuers: Sequence[IssuerPublicKey], kind: TokenType) -> VerifiedToken:
    """Returns the payload of a token that one of `issuers` signed, and which.

    Raises:
        LicenseRequiredError: No trusted issuer was given.
        SignatureError: Unsigned, signed in another way or by another issuer, another type, or altered.
        FormatError: Signed, and no strict JSON object.
    """
    # The header only says which of our keys it is; it brings none.
    parsed = _parse(token, kind)
    issuer = _find_issuer(parsed.key_id, issuers, kind)
    _verify_signature(token, issuer, kind)
    return VerifiedToken(issuer, parse_json_object(parsed.payload, f"{kind.name} claims"))


def read_token_unverified(token: bytes, kind: TokenType) -> dict[str, Any]:
    """Returns a token's payload without looking at the signature.

    Raises:
        SignatureError: The token's form or header is not the accepted one.
        FormatError: No strict JSON object.
    """
    return parse_json_object(_parse(token, kind).payload, f"{kind.name} claims")


def _parse(token: bytes, kind: TokenType) -> _Token:
    segments = token.decode("latin-1").split(".")
    if len(segments) != 3 or not segments[2]:
        raise SignatureError(f"{kind.name} is not signed", hint=f"ask the issuer for a signed {kind.name}")
    try:
        header, payload, signature = (decode_base64url(segment, f"{kind.name} token") for segment in segments)
    except FormatError as error:
        raise SignatureError(error.message, hint=error.hint) from None
    key_id = _check_header(parse_json_object(header, f"{kind.name} header"), kind)
    if len(signature) != SIGNATURE_BYTES:
        found = f"{kind.name} signature has {len(signature)} bytes, expected {SIGNATURE_BYTES}"
        raise SignatureError(found, hint=_hint(kind))
    return _Token(key_id, payload)


def _check_header(header: dict[str, Any], kind: TokenType) -> str:
    for name, expected in (("alg", ALGORITHM), ("typ", kind.media_type)):
        if header.get(name) != expected:
            found = f"{kind.name} header has {name} {header.get(name)!a:.40}, expected {expected}"
            raise SignatureError(found, hint=_hint(kind))
    if set(header) != {"alg", "typ", "kid"}:
        fields = ", ".join(ascii(name)[1:-1][:20] for name in sorted(header))
        found = f"{kind.name} header has fields {fields:.80}, expected alg, kid, typ"
        raise SignatureError(found, hint=_hint(kind))
    key_id = header["kid"]
    if not isinstance(key_id, str) or not _THUMBPRINT.fullmatch(key_id):
        raise SignatureError(f"{kind.name} header has a kid that is no RFC 7638 thumbprint", hint=_hint(kind))
    return key_id


def _find_issuer(key_id: str, issuers: Sequence[IssuerPublicKey], kind: TokenType) -> IssuerPublicKey:
    if not issuers:
        raise LicenseRequiredError("no trusted issuer was given", hint="give the issuer's public key, issuer.pub")
    for issuer in issuers:
        if issuer.thumbprint == key_id:
            return issuer
    expected = " or ".join(issuer.thumbprint for issuer in issuers[:3])
    found = f"{kind.name} is signed by issuer {key_id}, expected {expected}"
    hint = f"ask the issuer you trust for a {kind.name}, or trust this issuer's public key"
    raise SignatureError(found, hint=hint)


def _verify_signature(token: bytes, issuer: IssuerPublicKey, kind: TokenType) -> None:
    try:
        # algorithms= is what keeps the library from letting the file choose.
        jws.deserialize_compact(token, OKPKey.import_key(issuer.key), algorithms=[ALGORITHM])
    except JoseError:
        found = f"{kind.name} signature does not verify with issuer key {issuer.thumbprint}"
        hint = f"get an undamaged copy of the {kind.name}, or ask the issuer for one"
        raise SignatureError(found, hint=hint) from None


def _hint(kind: TokenType) -> str:
    return f"ask the issuer for a fresh {kind.name}"
