"""The signed half of a license: claims as a JWT, signed with Ed25519 (RFC 7515, RFC 7519, RFC 9864).

The header may say one thing only. Whatever else JOSE offers there (other algorithms, keys and addresses of keys in
the header, critical extensions) has been used to forge tokens (RFC 8725 section 2), so none of it is read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from keylatch.errors import FormatError, LicenseRequiredError, SignatureError
from keylatch.keys._claims import Claims, UnverifiedClaims, parse_claims
from keylatch.keys._encoding import canonical_json, decode_base64url, encode_base64url, parse_json_object
from keylatch.keys._issuer_key import IssuerKey, IssuerPublicKey

# RFC 9864's name; "EdDSA" leaves the curve open and is deprecated there.
ALGORITHM = "Ed25519"
TOKEN_TYPE = "keylatch-license+jwt"  # noqa: S105 - a media type (RFC 8725 section 3.11), not a password
SIGNATURE_BYTES = 64

_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}")
_HINT = "ask the issuer for a fresh license"


class _Token(NamedTuple):
    key_id: str
    payload: bytes


def sign_claims(claims: UnverifiedClaims, issuer: IssuerKey) -> bytes:
    """Returns claims as a signed compact JWT."""
    header = {"alg": ALGORITHM, "typ": TOKEN_TYPE, "kid": claims.issuer}
    parts = (encode_base64url(canonical_json(part)).encode("ascii") for part in (header, claims.to_payload()))
    signed = b".".join(parts)
    # Not through joserfc: an issuer key may be in an HSM, and signs bytes.
    return signed + b"." + encode_base64url(issuer.sign(signed)).encode("ascii")


def verify_token(jwt: bytes, trust: Sequence[IssuerPublicKey]) -> Claims:
    """Reads claims from a JWT that one of the trusted issuers signed: steps 2 and 3 of opening a license.

    Raises:
        LicenseRequiredError: No trusted issuer was given.
        SignatureError: Unsigned, signed in another way or by another issuer, or altered.
        FormatError: Signed, and not claims in this version.
    """
    # 2. The signature, with a pinned key. The header only says which of our keys it is; it brings none.
    token = _parse_token(jwt)
    issuer = _find_issuer(token.key_id, trust)
    _verify_signature(jwt, issuer)
    # 3. Type (in the header), audience and version (in parse_claims), and the issuer named inside.
    claims = parse_claims(parse_json_object(token.payload, "license claims"), Claims)
    if claims.issuer != issuer.thumbprint:
        found = f"license names issuer {claims.issuer}, but is signed by {issuer.thumbprint}"
        raise SignatureError(found, hint=_HINT)
    return claims


def read_token_unverified(jwt: bytes) -> UnverifiedClaims:
    """Reads claims without looking at the signature.

    Raises:
        SignatureError: The token's form or header is not the accepted one.
        FormatError: Not claims in this version.
    """
    return parse_claims(parse_json_object(_parse_token(jwt).payload, "license claims"), UnverifiedClaims)


def _parse_token(jwt: bytes) -> _Token:
    segments = jwt.decode("latin-1").split(".")
    if len(segments) != 3 or not segments[2]:
        raise SignatureError("license is not signed", hint="ask the issuer for a signed license")
    try:
        header, payload, signature = (decode_base64url(segment, "license token") for segment in segments)
    except FormatError as error:
        raise SignatureError(error.message, hint=error.hint) from None
    key_id = _check_header(parse_json_object(header, "license header"))
    if len(signature) != SIGNATURE_BYTES:
        found = f"license signature has {len(signature)} bytes, expected {SIGNATURE_BYTES}"
        raise SignatureError(found, hint=_HINT)
    return _Token(key_id, payload)


def _check_header(header: dict[str, Any]) -> str:
    for name, expected in (("alg", ALGORITHM), ("typ", TOKEN_TYPE)):
        if header.get(name) != expected:
            found = f"license header has {name} {header.get(name)!a:.40}, expected {expected}"
            raise SignatureError(found, hint=_HINT)
    if set(header) != {"alg", "typ", "kid"}:
        fields = ", ".join(ascii(name)[1:-1][:20] for name in sorted(header))
        raise SignatureError(f"license header has fields {fields:.80}, expected alg, kid, typ", hint=_HINT)
    key_id = header["kid"]
    if not isinstance(key_id, str) or not _THUMBPRINT.fullmatch(key_id):
        raise SignatureError("license header has a kid that is no RFC 7638 thumbprint", hint=_HINT)
    return key_id


def _find_issuer(key_id: str, trust: Sequence[IssuerPublicKey]) -> IssuerPublicKey:
    if not trust:
        raise LicenseRequiredError("no trusted issuer was given", hint="give the issuer's public key, issuer.pub")
    for issuer in trust:
        if issuer.thumbprint == key_id:
            return issuer
    expected = " or ".join(issuer.thumbprint for issuer in trust[:3])
    found = f"license is signed by issuer {key_id}, expected {expected}"
    raise SignatureError(found, hint="ask the issuer you trust for a license, or trust this issuer's public key")


def _verify_signature(jwt: bytes, issuer: IssuerPublicKey) -> None:
    try:
        # algorithms= is what keeps the library from letting the file choose.
        jws.deserialize_compact(jwt, OKPKey.import_key(issuer.key), algorithms=[ALGORITHM])
    except JoseError:
        found = f"license signature does not verify with issuer key {issuer.thumbprint}"
        raise SignatureError(found, hint="get an undamaged copy of the license, or ask the issuer for one") from None
