"""The signed half of a license: claims as a JWT (RFC 7519), with a cosignature behind it where there is one.

    JWT                          header.payload.signature, by the issuer, Ed25519
    JWT ~ cosignature            the same, and header..signature, by a cosigner, ML-DSA-65

The tilde stands in neither's alphabet.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace
from typing import Any

from keylatch.errors import CosignatureError, SignatureError
from keylatch.keys._claims import COSIGNATURE_CLAIM, Claims, UnverifiedClaims, parse_claims
from keylatch.keys._cosignature import CosignerKey, verify_cosignature
from keylatch.keys._encoding import canonical_json
from keylatch.keys._issuer_key import IssuerKey
from keylatch.keys._signed_token import TokenType, read_token_unverified, sign_token, verify_token
from keylatch.keys._trust import Trust

LICENSE_TOKEN = TokenType("keylatch-license+jwt", "license")

_SEPARATOR = b"~"
_HINT = "ask the issuer for a fresh license"


def sign_claims(claims: UnverifiedClaims, issuer: IssuerKey, cosigner: CosignerKey | None = None) -> bytes:
    """Returns claims as a signed compact JWT, cosigned first if there is a cosigner."""
    if cosigner is None:
        return sign_token(claims.to_payload(), issuer, LICENSE_TOKEN)
    cosignature = cosigner.cosign(canonical_json(claims.to_payload()))
    signed = replace(claims, cosignature_sha256=hashlib.sha256(cosignature).hexdigest())
    return sign_token(signed.to_payload(), issuer, LICENSE_TOKEN) + _SEPARATOR + cosignature


def verify_claims(token: bytes, trust: Trust) -> Claims:
    """Reads claims from a token that a trusted issuer signed: steps 2 and 3 of opening a license.

    Raises:
        LicenseRequiredError: No trusted issuer was given.
        SignatureError: Unsigned, signed in another way or by another issuer, or altered.
        CosignatureError: The cosignature that the device or the claims demand is missing or wrong.
        FormatError: Signed, and not claims in this version.
    """
    jwt, cosignature = _split(token)
    # 2. The signature, with a pinned key; then the second one, if this device demands it.
    issuer, payload = verify_token(jwt, trust.issuers, LICENSE_TOKEN)
    _check_bound(payload, cosignature)
    if trust.cosigners:
        verify_cosignature(cosignature, _cosigned(payload), trust.cosigners)
    # 3. Type (in the header), audience and version (in parse_claims), and the issuer named inside.
    claims = parse_claims(payload, Claims)
    if claims.issuer != issuer.thumbprint:
        found = f"license names issuer {claims.issuer}, but is signed by {issuer.thumbprint}"
        raise SignatureError(found, hint=_HINT)
    trust.check_not_retired(issuer, claims.expires_at)
    return claims


def read_claims_unverified(token: bytes) -> UnverifiedClaims:
    """Reads claims without looking at any signature.

    Raises:
        SignatureError: The token's form or header is not the accepted one.
        FormatError: Not claims in this version.
    """
    return parse_claims(read_token_unverified(_split(token)[0], LICENSE_TOKEN), UnverifiedClaims)


def _split(token: bytes) -> tuple[bytes, bytes | None]:
    jwt, separator, cosignature = token.partition(_SEPARATOR)
    return jwt, cosignature if separator else None


def _check_bound(payload: dict[str, Any], cosignature: bytes | None) -> None:
    # What the issuer signed says whether there is a cosignature, and which: none can be added, removed or exchanged.
    actual = None if cosignature is None else hashlib.sha256(cosignature).hexdigest()
    expected = payload.get(COSIGNATURE_CLAIM)
    if not hmac.compare_digest(str(actual).encode(), str(expected).encode("utf-8", "surrogatepass")):
        found = "license's second signature is not the one that the issuer signed for"
        raise CosignatureError(found, hint="get an undamaged copy of the license, or ask the issuer for one")


def _cosigned(payload: dict[str, Any]) -> bytes:
    return canonical_json({name: value for name, value in payload.items() if name != COSIGNATURE_CLAIM})
