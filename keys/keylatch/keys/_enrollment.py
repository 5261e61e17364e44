"""A device's request for licenses: its public key, what it says of itself, and a proof that it holds the key.

    {"keylatch": "enrollment/1", "public_key": {…}, "thumbprint": …, "facts": {"hostname": "edge-7"},
     "created_at": 1795132800, "proof": …}

`public_key` is a P-256 JWK. `proof` is an ECDSA signature with SHA-256, r and s in 64 bytes, base64url, by the device
key over ``keylatch/1 enrollment`` and the canonical JSON of all other members.

It shows that whoever holds the private key wrote these facts, at some time. It does not show when, nor that the facts
are true: anybody makes a key and writes any host name over it, and a request can be shown again by whoever saw it. The
issuer decides whom he believes, by the way the request came to him or by comparing thumbprints.

A hybrid key cannot sign. Its public key file is what the device sends; that it opens a license is its proof.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from keylatch.errors import EnrollmentError, FormatError
from keylatch.keys._clock import MAX_TIME
from keylatch.keys._device_key import COORDINATE_BYTES, DevicePublicKey, ProvingDeviceKey
from keylatch.keys._device_secret import AnyDevicePublicKey
from keylatch.keys._encoding import canonical_json, decode_base64url, encode_base64url, parse_json_object
from keylatch.keys._files import PUBLIC_MODE, read_public_file, write_file
from keylatch.keys._hybrid_key import KEY_TYPE, HybridPublicKey

ENROLLMENT_VERSION = "enrollment/1"
MAX_REQUEST_BYTES = 16 * 1024
MAX_FACTS = 16
MAX_FACT_CHARACTERS = 200
# As JSON, where a character takes up to twelve bytes; the rest of a request is under 1 KiB.
MAX_FACTS_BYTES = 12 * 1024

# The order of P-256's group (FIPS 186-5, SP 800-186 section 3.2.1.3): r and s lie between 1 and it, exclusive.
_ORDER = 0xFFFFFFFF_00000000_FFFFFFFF_FFFFFFFF_BCE6FAAD_A7179E84_F3B9CAC2_FC632551
_CONTEXT = b"keylatch/1 enrollment"
_MEMBERS = {"keylatch", "public_key", "thumbprint", "facts", "created_at", "proof"}
_FACT_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,31}")
_HINT = "ask the device's owner for its enrollment request again"


@dataclass(frozen=True, slots=True)
class EnrollmentRequest:
    """What a device asks an issuer to license.

    Args:
        public: The device's public key.
        facts: What the device says of itself; see `check_facts`.
        created_at: Seconds since the epoch, by the device's clock.

    Raises:
        FormatError: A fact or the time is of another type or out of its range.
    """

    public: DevicePublicKey
    facts: Mapping[str, str]
    created_at: int

    def __post_init__(self) -> None:
        check_facts(self.facts)
        object.__setattr__(self, "facts", MappingProxyType(dict(self.facts)))
        # type(), not isinstance(): a JSON true is an int to Python.
        if type(self.created_at) is not int or not 0 <= self.created_at <= MAX_TIME:
            raise FormatError("enrollment's created_at is no time in seconds", hint=_HINT)


def make_enrollment_request(key: ProvingDeviceKey, facts: Mapping[str, str], *, created_at: int) -> bytes:
    """Returns an enrollment request, readable JSON that ends in a newline; it holds no secret.

    The one signature that a key-agreement key may make is the one over the request for itself (NIST SP 800-57 part 1,
    section 5.2).

    Args:
        key: Signs the request.
        facts: What the device says of itself; see `check_facts`.
        created_at: Seconds since the epoch.

    Raises:
        FormatError: Facts that no request can carry.
        DeviceKeyError: The key cannot be used.
        EnrollmentError: The key signed wrongly.
    """
    request = EnrollmentRequest(key.public, facts, created_at)
    members = {
        "keylatch": ENROLLMENT_VERSION,
        "public_key": request.public.to_jwk(),
        "thumbprint": request.public.thumbprint,
        "facts": dict(request.facts),
        "created_at": request.created_at,
    }
    proof = key.prove_possession(_statement(members))
    data = json.dumps({**members, "proof": encode_base64url(proof)}, indent=2).encode("ascii") + b"\n"
    # What a faulty token signed is better found here than by the issuer.
    parse_enrollment_request(data)
    return data


def write_enrollment_request(path: str | os.PathLike[str], request: bytes) -> None:
    """Writes an enrollment request atomically; refuses to overwrite.

    Raises:
        OutputError: The file exists or cannot be written.
    """
    write_file(Path(path), request, what="enrollment request", mode=PUBLIC_MODE)


def parse_enrollment_request(data: bytes) -> EnrollmentRequest:
    """Reads an enrollment request and verifies its proof.

    Raises:
        FormatError: Too large, not strict JSON, another version, or a member that is missing, unknown or malformed.
        EnrollmentError: The thumbprint is not the key's, or the proof does not verify.
    """
    if len(data) > MAX_REQUEST_BYTES:
        found = f"enrollment request has {len(data)} bytes, expected at most {MAX_REQUEST_BYTES}"
        raise FormatError(found, hint=_HINT)
    return _parse(parse_json_object(data, "enrollment request"))


def check_facts(facts: Mapping[str, str]) -> None:
    """Holds facts to what a request carries.

    Args:
        facts: At most `MAX_FACTS`: names such as ``hostname`` or ``tpm.vendor``, values of 1 to `MAX_FACT_CHARACTERS`
            printable characters, at most `MAX_FACTS_BYTES` together.

    Raises:
        FormatError: They are something else.
    """
    if len(facts) > MAX_FACTS:
        raise FormatError(f"enrollment has {len(facts)} facts, expected at most {MAX_FACTS}", hint=_FACT_HINT)
    for name, value in facts.items():
        _check_fact(name, value)
    size_bytes = len(canonical_json(dict(facts)))
    if size_bytes > MAX_FACTS_BYTES:
        raise FormatError(f"enrollment facts take {size_bytes} bytes, expected {MAX_FACTS_BYTES}", hint=_FACT_HINT)


def load_device(path: str | os.PathLike[str]) -> AnyDevicePublicKey:
    """Reads what a device sent: its public key file, P-256 or hybrid, or its enrollment request.

    Raises:
        FormatError: Missing, too large, malformed, or none of the three.
        EnrollmentError: A request that proves nothing.
    """
    return load_enrollment(path)[0]


def load_enrollment(path: str | os.PathLike[str]) -> tuple[AnyDevicePublicKey, dict[str, str]]:
    """Reads what a device sent, as `load_device`, and the facts with it; a public key alone has none.

    Raises:
        FormatError: Missing, too large, malformed, or none of the three.
        EnrollmentError: A request that proves nothing.
    """
    what = "device public key or enrollment request"
    data = read_public_file(Path(path), what=what, max_bytes=MAX_REQUEST_BYTES)
    if b"PRIVATE KEY" in data:
        raise FormatError("got a private key, expected a device's public key", hint="never send the private key")
    value = parse_json_object(data, f"{what} {path}")
    if "keylatch" in value:
        request = _parse(value)
        return request.public, dict(request.facts)
    kind = HybridPublicKey if value.get("kty") == KEY_TYPE else DevicePublicKey
    return kind.from_jwk(value), {}


_FACT_HINT = f"give at most {MAX_FACTS} facts, as hostname=edge-7: a name in lower case, a value of one short line"


def _check_fact(name: object, value: object) -> None:
    if not isinstance(name, str) or not _FACT_NAME.fullmatch(name):
        raise FormatError(f"enrollment has a fact called {name!a:.40}, expected a-z, 0-9, _ . -", hint=_FACT_HINT)
    # isprintable() refuses control and direction-override characters, which could rewrite a terminal's line.
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_FACT_CHARACTERS or not value.isprintable():
        found = f"enrollment fact {name} is not 1 to {MAX_FACT_CHARACTERS} printable characters"
        raise FormatError(found, hint=_FACT_HINT)


def _statement(members: Mapping[str, Any]) -> bytes:
    return _CONTEXT + canonical_json(members)


def _parse(value: dict[str, Any]) -> EnrollmentRequest:
    if value.get("keylatch") != ENROLLMENT_VERSION:
        found = f"enrollment request has version {value.get('keylatch')!a:.20}, expected {ENROLLMENT_VERSION}"
        raise FormatError(found, hint="upgrade keylatch, or ask for a request in this version")
    if set(value) != _MEMBERS or not all(isinstance(value[name], dict) for name in ("public_key", "facts")):
        raise FormatError("enrollment request has missing, unknown or malformed members", hint=_HINT)
    public = DevicePublicKey.from_jwk(value["public_key"])
    if value["thumbprint"] != public.thumbprint or value["public_key"] != public.to_jwk():
        found = f"enrollment request does not name its key's thumbprint, {public.thumbprint}"
        raise EnrollmentError(found, hint=_HINT)
    request = EnrollmentRequest(public, value["facts"], value["created_at"])
    _verify_proof(value, public)
    return request


def _verify_proof(value: dict[str, Any], public: DevicePublicKey) -> None:
    proof = decode_base64url(value["proof"], "enrollment proof")
    if len(proof) != 2 * COORDINATE_BYTES:
        found = f"enrollment proof has {len(proof)} bytes, expected {2 * COORDINATE_BYTES}"
        raise FormatError(found, hint=_HINT)
    r, s = (int.from_bytes(half, "big") for half in (proof[:COORDINATE_BYTES], proof[COORDINATE_BYTES:]))
    statement = _statement({name: member for name, member in value.items() if name != "proof"})
    try:
        # A zero r or s verified anything in some libraries (CVE-2022-21449): not left to the one below.
        if not (0 < r < _ORDER and 0 < s < _ORDER):
            raise InvalidSignature
        public.key.verify(encode_dss_signature(r, s), statement, ECDSA(SHA256()))
    except InvalidSignature:
        found = (
            f"enrollment proof does not verify with key {public.thumbprint}: it was edited, or another key signed it"
        )
        raise EnrollmentError(found, hint=_HINT) from None
