"""What a license says: the claims, their JSON names, and the rules each one meets."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any, TypeVar

from keylatch.errors import FormatError, SignatureError
from keylatch.keys._domains import DOMAIN_NAME
from keylatch.keys._value_rules import HEX_DIGEST, THUMBPRINT, TIME, Rule, optional, whole_number

AUDIENCE = "keylatch-runtime"
CLAIMS_VERSION = 1
MAX_DEVICES = 1024
MAX_CUSTOMER_CHARACTERS = 200
MAX_DOMAINS = 64
# Integers beyond 2**53 are not exact in every JSON reader (RFC 8259 section 6).
MAX_SEQ = 2**53 - 1
# Ten years, in seconds: a larger bound on a list's age is none.
MAX_LIST_AGE = 10 * 366 * 86_400
COSIGNATURE_CLAIM = "cosignature_sha256"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedClaims:
    """Claims as they stand in the file. Anyone can write these: for showing, never for deciding.

    Args:
        issuer: Thumbprint of the issuer key.
        customer: Whom the license was sold to, printable text.
        issued_at: Seconds since the epoch, as all times here.
        not_before: First second of validity.
        expires_at: First second after validity.
        license_id: UUID, version 4.
        seq: Position in the issuer's order; a later license for the same use has a larger one.
        devices: Thumbprints of the licensed devices, sorted.
        model_id: SHA-256 of the model's manifest, 64 hex digits.
        jwe_sha256: SHA-256 of the license's JWE, hex.
        blob_sha256: SHA-256 of the license's blob, hex.
        max_list_age: The license opens only with a revocation list no older than this, in seconds; None asks for none.
        cosignature_sha256: SHA-256 of the license's second signature, hex; None without one.
        domains: The domains that it pays for, sorted; () for the source domain alone, None for a model without domains.

    Raises:
        FormatError: A value of another type or out of its range.
    """

    issuer: str
    customer: str
    issued_at: int
    not_before: int
    expires_at: int
    license_id: str
    seq: int
    devices: tuple[str, ...]
    model_id: str
    jwe_sha256: str
    blob_sha256: str
    max_list_age: int | None = None
    cosignature_sha256: str | None = None
    domains: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name, (valid, expected) in _RULES.items():
            if not valid(getattr(self, name)):
                found = f"license {name} is {getattr(self, name)!a:.80}, expected {expected}"
                raise FormatError(found, hint=f"give {name} as {expected}")
        if self.expires_at <= max(self.not_before, self.issued_at):
            found = "license expires before it becomes valid: expires_at is not after not_before and issued_at"
            raise FormatError(found, hint="give a later expires_at")

    def to_payload(self) -> dict[str, Any]:
        """Returns the JWT payload (RFC 7519 section 4, RFC 7800 for ``cnf``)."""
        payload = {claim: getattr(self, name) for name, claim in _CLAIM_NAMES.items()}
        payload |= {name: getattr(self, name) for name in _OPTIONAL_NAMES if getattr(self, name) is not None}
        return {**payload, "cnf": {"jkt": list(self.devices)}, "aud": AUDIENCE, "keylatch": CLAIMS_VERSION}


class Claims(UnverifiedClaims):
    """Claims under a trusted issuer's signature, within their time. Only `verify_license` returns these."""

    __slots__ = ()


_C = TypeVar("_C", bound=UnverifiedClaims)


def parse_claims(payload: dict[str, Any], kind: type[_C]) -> _C:
    """Reads a JWT payload: exactly the claims of `UnverifiedClaims.to_payload`, strictly typed.

    Raises:
        SignatureError: Made for another audience.
        FormatError: Another version, or a claim that is missing, unknown or of the wrong type.
    """
    if payload.get("keylatch") != CLAIMS_VERSION or type(payload["keylatch"]) is not int:
        found = f"license claims have version {payload.get('keylatch')!a:.20}, expected {CLAIMS_VERSION}"
        raise FormatError(found, hint="upgrade keylatch, or ask the issuer for a license in this version")
    if payload.get("aud") != AUDIENCE:
        found = f"token is for {payload.get('aud')!a:.40}, expected {AUDIENCE}"
        raise SignatureError(found, hint="give a license for the runtime")
    required = set(payload) - _OPTIONAL_NAMES
    if required != _PAYLOAD_NAMES:
        difference = ", ".join(ascii(name)[1:-1][:20] for name in sorted(required ^ _PAYLOAD_NAMES))
        raise FormatError(f"license claims are missing or unknown: {difference:.80}", hint=_HINT)
    values = {name: payload[claim] for name, claim in _CLAIM_NAMES.items()}
    for name in _OPTIONAL_NAMES & set(payload):
        if payload[name] is None:  # an absent claim has one encoding: absence
            raise FormatError(f"license claim {name} is null", hint=_HINT)
        values[name] = payload[name]
    if isinstance(values.get("domains"), list):
        values["domains"] = tuple(values["domains"])
    return kind(devices=_parse_devices(payload["cnf"]), **values)


_HINT = "ask the issuer for a fresh license"
_CLAIM_NAMES = {
    "issuer": "iss",
    "customer": "sub",
    "issued_at": "iat",
    "not_before": "nbf",
    "expires_at": "exp",
    "license_id": "jti",
    "seq": "seq",
    "model_id": "model_id",
    "jwe_sha256": "jwe_sha256",
    "blob_sha256": "blob_sha256",
}
_OPTIONAL_NAMES = frozenset({"max_list_age", COSIGNATURE_CLAIM, "domains"})
_PAYLOAD_NAMES = {*_CLAIM_NAMES.values(), "cnf", "aud", "keylatch"}


def _parse_devices(cnf: object) -> tuple[str, ...]:
    if not isinstance(cnf, dict) or set(cnf) != {"jkt"} or not isinstance(cnf["jkt"], list):
        raise FormatError("license cnf does not hold one list, jkt, of device thumbprints", hint=_HINT)
    return tuple(cnf["jkt"])


def _is_customer(value: object) -> bool:
    # isprintable() refuses control and direction-override characters, which could rewrite a terminal's line.
    return isinstance(value, str) and 1 <= len(value) <= MAX_CUSTOMER_CHARACTERS and value.isprintable()


def _is_uuid4(value: object) -> bool:
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value and uuid.UUID(value).version == 4
    except ValueError:
        return False


def _is_devices(value: object) -> bool:
    if not isinstance(value, tuple) or not 1 <= len(value) <= MAX_DEVICES:
        return False
    return all(map(THUMBPRINT[0], value)) and list(value) == sorted(set(value))


def _is_domains(value: object) -> bool:
    if not isinstance(value, tuple) or len(value) > MAX_DOMAINS:
        return False
    return all(isinstance(name, str) and DOMAIN_NAME.fullmatch(name) for name in value) and list(value) == sorted(
        set(value)
    )


_RULES: dict[str, Rule] = {
    "issuer": THUMBPRINT,
    "customer": (_is_customer, f"1 to {MAX_CUSTOMER_CHARACTERS} printable characters"),
    "issued_at": TIME,
    "not_before": TIME,
    "expires_at": TIME,
    "license_id": (_is_uuid4, "a UUID of version 4"),
    "seq": whole_number(1, MAX_SEQ),
    "devices": (_is_devices, f"1 to {MAX_DEVICES} different device thumbprints, sorted"),
    "model_id": HEX_DIGEST,
    "jwe_sha256": HEX_DIGEST,
    "blob_sha256": HEX_DIGEST,
    "max_list_age": optional(whole_number(0, MAX_LIST_AGE, "whole seconds")),
    COSIGNATURE_CLAIM: optional(HEX_DIGEST),
    "domains": optional((_is_domains, f"up to {MAX_DOMAINS} different names of domains, sorted")),
}
