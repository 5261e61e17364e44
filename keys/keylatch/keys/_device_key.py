"""The device's P-256 key pair: the protocol every kind of key store meets, and the public half."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePublicKey,
    EllipticCurvePublicNumbers,
)

from keylatch.errors import FormatError
from keylatch.keys._encoding import canonical_json, decode_base64url, encode_base64url, parse_json_object
from keylatch.keys._files import PUBLIC_MODE, read_public_file, write_file
from keylatch.keys._secret_bytes import SecretBytes

MAX_JWK_BYTES = 4 * 1024
COORDINATE_BYTES = 32

_HINT = "ask the device's owner for its public key file again"


@dataclass(frozen=True, slots=True)
class DevicePublicKey:
    """The public half of a device key; licenses are encrypted to it.

    Args:
        key: The P-256 public key.

    Attributes:
        thumbprint: RFC 7638 thumbprint, base64url, 43 characters; the device's name in licenses.

    Raises:
        FormatError: The key is on another curve.
    """

    key: EllipticCurvePublicKey = field(repr=False, compare=False)
    thumbprint: str = field(init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.key.curve, SECP256R1):
            raise FormatError(f"device key is on curve {self.key.curve.name}, expected P-256", hint=_HINT)
        digest = hashlib.sha256(canonical_json(_required_members(self.key))).digest()
        object.__setattr__(self, "thumbprint", encode_base64url(digest))

    def to_jwk(self) -> dict[str, str]:
        """Returns the public JWK (RFC 7518 section 6.2), with the thumbprint as ``kid``."""
        return {**_required_members(self.key), "kid": self.thumbprint}

    @classmethod
    def from_jwk(cls, jwk: Mapping[str, object]) -> Self:
        """Reads a public P-256 JWK.

        Raises:
            FormatError: A private or unknown member, another curve, a point off the curve, or a foreign ``kid``.
        """
        if "d" in jwk:
            raise FormatError("JWK holds a private key, expected a public one", hint="never send the private key")
        if not {"kty", "crv", "x", "y"} <= set(jwk) <= {"kty", "crv", "x", "y", "kid"}:
            raise FormatError("JWK members are not those of a public P-256 key", hint=_HINT)
        if (jwk["kty"], jwk["crv"]) != ("EC", "P-256"):
            raise FormatError("JWK is not a P-256 key", hint=_HINT)
        public = cls(_parse_point(jwk["x"], jwk["y"]))
        if jwk.get("kid", public.thumbprint) != public.thumbprint:
            raise FormatError(f"JWK has a foreign kid, expected its thumbprint {public.thumbprint}", hint=_HINT)
        return public

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Reads a public key file that `save` wrote.

        Raises:
            FormatError: Missing, too large, not strict JSON, or no public P-256 JWK.
        """
        data = read_public_file(Path(path), what="device public key file", max_bytes=MAX_JWK_BYTES)
        return cls.from_jwk(parse_json_object(data, f"device public key file {path}"))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the JWK as one line of canonical JSON; refuses to overwrite.

        Raises:
            OutputError: The file exists or cannot be written.
        """
        data = canonical_json(self.to_jwk()) + b"\n"
        write_file(Path(path), data, what="device public key file", mode=PUBLIC_MODE)


class DeviceKey(Protocol):
    """A device's private key, wherever it lives: a file, a TPM, an HSM.

    Two members are all that opening a license needs, so a key that never leaves its hardware fits.
    """

    @property
    def public(self) -> DevicePublicKey:
        """The half that licenses are issued to."""
        ...

    def exchange(self, peer: EllipticCurvePublicKey) -> SecretBytes:
        """Returns the ECDH shared secret with `peer`, a P-256 key: the raw x coordinate, 32 bytes, big-endian."""
        ...


class ProvingDeviceKey(DeviceKey, Protocol):
    """A device key that also proves possession of itself, for enrollment.

    Signing its own enrollment request is the one signature that NIST SP 800-57 part 1, section 5.2, allows a
    key-agreement key.
    """

    def prove_possession(self, statement: bytes) -> bytes:
        """Returns an ECDSA signature with SHA-256 of `statement`: r and s, 32 bytes each, big-endian (as ES256)."""
        ...


def _required_members(key: EllipticCurvePublicKey) -> dict[str, str]:
    # Exactly the members that RFC 7638 section 3.2 hashes; kid must not be among them.
    numbers = key.public_numbers()
    x, y = (encode_base64url(value.to_bytes(COORDINATE_BYTES, "big")) for value in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": "P-256", "x": x, "y": y}


def _parse_point(x: object, y: object) -> EllipticCurvePublicKey:
    try:
        # public_key() checks that the point is on the curve: an invalid one would leak the peer's private key.
        return EllipticCurvePublicNumbers(_parse_coordinate(x), _parse_coordinate(y), SECP256R1()).public_key()
    except FormatError:
        raise
    except ValueError:
        raise FormatError("JWK coordinates are not a point on P-256", hint=_HINT) from None


def _parse_coordinate(text: object) -> int:
    data = decode_base64url(text, "JWK coordinate")
    if len(data) != COORDINATE_BYTES:
        raise FormatError(f"JWK coordinate has {len(data)} bytes, expected {COORDINATE_BYTES}", hint=_HINT)
    return int.from_bytes(data, "big")
