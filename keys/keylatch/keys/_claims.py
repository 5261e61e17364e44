"""What a license says: the claims, their JSON names, and the rules each one meets."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from keylatch.errors import FormatError, SignatureError
from keylatch.keys._clock import MAX_TIME

AUDIENCE = "keylatch-runtime"
CLAIMS_VERSION = 1
MAX_DEVICES = 1024
MAX_CUSTOMER_CHARACTERS = 200
# Integers beyond 2**53 are not exact in every JSON reader (RFC 8259 section 6).
MAX_SEQ = 2**53 - 1
# Ten years, in seconds: a larger bound on a list's age is none.
MAX_LIST_AGE = 10 * 366 * 86_400
COSIGNATURE_CLAIM = "cosignature_sha256"

# fullmatch, and [0-9] for \d: "$" lets a newline through and \d any script's digits.
_HEX_DIGEST = re.compile(r"[0-9a-f]{64}")
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}")


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
_OPTIONAL_NAMES = frozenset({"max_list_age", COSIGNATURE_CLAIM})
_PAYLOAD_NAMES = {*_CLAIM_NAMES.values(), "cnf", "aud", "keylatch"}


def _parse_devices(cnf: object) -> tuple[str, ...]:
    if not isinstance(cnf, dict) or set(cnf) != {"jkt"} or not isinstance(cnf["jkt"], list):
        raise FormatError("license cnf does not hold one list, jkt, of device thumbprints", hint=_HINT)
    return tuple(cnf["jkt"])


def _is_thumbprint(value: object) -> bool:
    return isinstance(value, str) and _THUMBPRINT.fullmatch(value) is not None


def _is_hex_digest(value: object) -> bool:
    return isinstance(value, str) and _HEX_DIGEST.fullmatch(value) is not None


def _is_time(value: object) -> bool:
    # type(), not isinstance(): a JSON true is an int to Python.
    return type(value) is int and 0 <= value <= MAX_TIME


def _is_customer(value: object) -> bool:
    # isprintable() refuses control and direction-override characters, which could rewrite a terminal's line.
    return isinstance(value, str) and 1 <= len(value) <= MAX_CUSTOMER_CHARACTERS and value.isprintable()


def _is_uuid4(value: object) -> bool:
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value and uuid.UUID(value).version == 4
    except ValueError:
        return False


def _is_seq(value: object) -> bool:
    return type(value) is int and 1 <= value <= MAX_SEQ


def _is_devices(value: object) -> bool:
    if not isinstance(value, tuple) or not 1 <= len(value) <= MAX_DEVICES:
        return False
    return all(map(_is_thumbprint, value)) and list(value) == sorted(set(value))


def _is_list_age(value: object) -> bool:
    return value is None or (type(value) is int and 0 <= value <= MAX_LIST_AGE)


_TIME_RULE = (_is_time, f"whole seconds since the epoch, 0 to {MAX_TIME}")
_DIGEST_RULE = (_is_hex_digest, "64 lower-case hex digits")
_RULES: dict[str, tuple[Callable[[object], bool], str]] = {
    "issuer": (_is_thumbprint, "an RFC 7638 thumbprint"),
    "customer": (_is_customer, f"1 to {MAX_CUSTOMER_CHARACTERS} printable characters"),
    "issued_at": _TIME_RULE,
    "not_before": _TIME_RULE,
    "expires_at": _TIME_RULE,
    "license_id": (_is_uuid4, "a UUID of version 4"),
    "seq": (_is_seq, f"an integer from 1 to {MAX_SEQ}"),
    "devices": (_is_devices, f"1 to {MAX_DEVICES} different device thumbprints, sorted"),
    "model_id": _DIGEST_RULE,
    "jwe_sha256": _DIGEST_RULE,
    "blob_sha256": _DIGEST_RULE,
    "max_list_age": (_is_list_age, f"whole seconds, 0 to {MAX_LIST_AGE}"),
    COSIGNATURE_CLAIM: (lambda value: value is None or _is_hex_digest(value), _DIGEST_RULE[1]),
}
