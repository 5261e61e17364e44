"""What an issuer's present key states beside licenses: the form and the checks that all its statements share.

    {"keylatch": 1, "aud": …, "iss": …, "iat": …, and the members of its type}

A statement stays small, as an issuer key may be in an HSM: Ed25519 signs messages whole, and such a key takes a few
kilobytes at once (AWS KMS, Sign: a message of at most 4096 bytes). What is larger is named by its SHA-256.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keylatch.errors import FormatError, SignatureError
from keylatch.keys._issuer_key import IssuerKey
from keylatch.keys._signed_token import TokenType, sign_token, verify_token
from keylatch.keys._trust import Trust
from keylatch.keys._value_rules import THUMBPRINT, TIME, Rule, check_values

STATEMENT_VERSION = 1
MAX_STATEMENT_BYTES = 4096


@dataclass(frozen=True, slots=True)
class StatementType:
    """One kind of statement.

    Args:
        token: Its name, and the header's ``typ``.
        audience: Who takes it, the claim ``aud``.
        rules: Its own members.
    """

    token: TokenType
    audience: str
    rules: Mapping[str, Rule]

    @property
    def hint(self) -> str:
        """What to do about one that is not well-formed."""
        return f"ask the issuer for a fresh {self.token.name}"


def sign_statement(values: Mapping[str, Any], *, issuer: IssuerKey, issued_at: int, kind: StatementType) -> bytes:
    """Returns a signed statement.

    Raises:
        FormatError: A value that no statement of this type can carry.
    """
    payload = {**values, "iss": issuer.public.thumbprint, "iat": issued_at}
    _check(payload, kind)
    payload |= {"keylatch": STATEMENT_VERSION, "aud": kind.audience}
    return sign_token(payload, issuer, kind.token)


def verify_statement(data: bytes, trust: Trust, kind: StatementType) -> dict[str, Any]:
    """Returns what an issuer key of `trust` that is not retired stated: all members but version and audience.

    Raises:
        LicenseRequiredError: No trusted issuer was given.
        SignatureError: Unsigned, signed in another way, by another issuer or by a retired key; of another type or for
            another audience; or altered.
        FormatError: Too large; or signed, and not a statement of this type in this version.
    """
    name = kind.token.name
    # 1. The size. Nothing longer is decoded.
    if len(data) > MAX_STATEMENT_BYTES:
        found = f"{name} has {len(data)} bytes, expected at most {MAX_STATEMENT_BYTES}"
        raise FormatError(found, hint=f"check that it is the {name}")
    # 2. The signature, with a pinned key. Among all of them, to tell a retired one from a foreign one.
    issuer, payload = verify_token(data, trust.issuers, kind.token)
    # 3. The key is in use: a retired one may be in anyone's hands.
    if issuer.thumbprint in trust.until:
        found = f"{name} is signed by a retired issuer key, {issuer.thumbprint}"
        raise SignatureError(found, hint=f"ask the issuer for a {name} by its present key")
    # 4. Version, audience, and exactly the members of this type.
    _check_version(payload.pop("keylatch", None), kind)
    audience = payload.pop("aud", None)
    if audience != kind.audience:
        found = f"{name} is for {audience!a:.40}, expected {kind.audience}"
        raise SignatureError(found, hint=kind.hint)
    _check(payload, kind)
    # 5. The issuer named inside is the one who signed.
    if payload["iss"] != issuer.thumbprint:
        found = f"{name} names issuer {payload['iss']}, but is signed by {issuer.thumbprint}"
        raise SignatureError(found, hint=kind.hint)
    return payload


def _check_version(version: object, kind: StatementType) -> None:
    if version != STATEMENT_VERSION or type(version) is not int:
        found = f"{kind.token.name} has version {version!a:.20}, expected {STATEMENT_VERSION}"
        raise FormatError(found, hint=f"upgrade keylatch, or {kind.hint}")


def _check(payload: Mapping[str, object], kind: StatementType) -> None:
    check_values(payload, {**kind.rules, "iss": THUMBPRINT, "iat": TIME}, kind.token.name, hint=kind.hint)
