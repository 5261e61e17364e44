"""The issuer's Ed25519 key pair: the protocol, and the public half, which devices pin."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from keylatch.errors import FormatError
from keylatch.keys._encoding import canonical_json, decode_base64url, encode_base64url
from keylatch.keys._files import PUBLIC_MODE, read_public_file, write_file
from keylatch.keys._secret_bytes import SecretBytes

MAX_PUBLIC_KEY_FILE_BYTES = 16 * 1024
PUBLIC_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class IssuerPublicKey:
    """The public half of an issuer key; a device pins it to decide whose licenses it takes.

    Args:
        key: The Ed25519 public key.

    Attributes:
        thumbprint: RFC 7638 thumbprint of the key as an RFC 8037 JWK, base64url, 43 characters.
    """

    key: Ed25519PublicKey = field(repr=False, compare=False)
    thumbprint: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha256(canonical_json(self.to_jwk())).digest()
        object.__setattr__(self, "thumbprint", encode_base64url(digest))

    def to_jwk(self) -> dict[str, str]:
        """Returns the public JWK (RFC 8037)."""
        return {"crv": "Ed25519", "kty": "OKP", "x": encode_base64url(self.key.public_bytes_raw())}

    @classmethod
    def from_jwk(cls, jwk: dict[str, object]) -> Self:
        """Reads a public Ed25519 JWK.

        Raises:
            FormatError: Another or malformed key.
        """
        if set(jwk) != {"crv", "kty", "x"} or (jwk["kty"], jwk["crv"]) != ("OKP", "Ed25519"):
            raise FormatError("JWK is not a public Ed25519 key", hint="get the trust file from the issuer again")
        data = decode_base64url(jwk["x"], "JWK x")
        if len(data) != PUBLIC_KEY_BYTES:
            found = f"JWK x has {len(data)} bytes, expected {PUBLIC_KEY_BYTES}"
            raise FormatError(found, hint="get the trust file from the issuer again")
        return cls(Ed25519PublicKey.from_public_bytes(data))

    @classmethod
    def from_pem(cls, data: bytes) -> Self:
        """Reads a PEM SubjectPublicKeyInfo.

        Raises:
            FormatError: Not PEM, a private key, or not Ed25519.
        """
        if b"PRIVATE KEY" in data:
            raise FormatError("got a private key, expected an issuer's public key", hint="give the issuer.pub file")
        try:
            key = load_pem_public_key(data)
        except (ValueError, UnsupportedAlgorithm):
            raise FormatError("not a public key in PEM", hint="give the issuer.pub file") from None
        if not isinstance(key, Ed25519PublicKey):
            raise FormatError("public key is not Ed25519, as issuer keys are", hint="give the issuer.pub file")
        return cls(key)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Reads a public key file that `save` wrote.

        Raises:
            FormatError: Missing, too large, or no Ed25519 public key.
        """
        data = read_public_file(Path(path), what="issuer public key file", max_bytes=MAX_PUBLIC_KEY_FILE_BYTES)
        return cls.from_pem(data)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes PEM SubjectPublicKeyInfo; refuses to overwrite.

        Raises:
            OutputError: The file exists or cannot be written.
        """
        data = self.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        write_file(Path(path), data, what="issuer public key file", mode=PUBLIC_MODE)


class IssuerKey(Protocol):
    """An issuer's private Ed25519 key, wherever it lives: a file or an HSM. Whoever has it can license its models."""

    @property
    def public(self) -> IssuerPublicKey:
        """The half to give away."""
        ...

    def sign(self, data: bytes) -> bytes:
        """Returns the Ed25519 signature of `data`, 64 bytes (RFC 8032)."""
        ...

    def vault_key(self) -> SecretBytes:
        """Returns the 32-byte key that this issuer's vaults are sealed under.

        Raises:
            DeviceKeyError: The key's store cannot give one.
        """
        ...
