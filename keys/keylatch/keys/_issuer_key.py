"""The issuer's Ed25519 key pair: the private half signs licenses and seals vaults, the public half is pinned."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from keylatch.errors import DeviceKeyError, FormatError
from keylatch.keys._encoding import canonical_json, encode_base64url
from keylatch.keys._files import PUBLIC_MODE, read_public_file, write_file
from keylatch.keys._key_file import read_key_file, write_key_file
from keylatch.keys._passphrase import PassphraseCallback
from keylatch.keys._secret_bytes import SecretBytes, Uncopyable

MAX_PUBLIC_KEY_FILE_BYTES = 16 * 1024

# Keeps the vault key apart from the signing key, and from what else the seed may give one day (RFC 5869 section 3.2).
_VAULT_KEY_INFO = b"keylatch/1 issuer vault key"


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
        jwk = {"crv": "Ed25519", "kty": "OKP", "x": encode_base64url(self.key.public_bytes_raw())}
        object.__setattr__(self, "thumbprint", encode_base64url(hashlib.sha256(canonical_json(jwk)).digest()))

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


class IssuerKey(Uncopyable):
    """An issuer's private Ed25519 key; whoever has it can license the issuer's models."""

    __slots__ = ("_key", "_public")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self._public = IssuerPublicKey(key.public_key())

    @classmethod
    def generate(cls) -> Self:
        """Makes a new key from the system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: str | os.PathLike[str], passphrase: PassphraseCallback | None = None) -> Self:
        """Reads a key file that `save` wrote.

        Raises:
            DeviceKeyError: The file is missing, open to others, or no Ed25519 key.
            PassphraseError: The passphrase is missing or wrong.
        """
        key = read_key_file(Path(path), kind="issuer key", passphrase=passphrase)
        if not isinstance(key, Ed25519PrivateKey):
            found = f"issuer key file {path} holds another kind of key, expected Ed25519"
            raise DeviceKeyError(found, hint="give the issuer's key, not a device's")
        return cls(key)

    def save(self, path: str | os.PathLike[str], passphrase: PassphraseCallback | None = None) -> None:
        """Writes the key with mode 0600, encrypted if there is a passphrase; refuses to overwrite.

        Raises:
            OutputError: The file exists or cannot be written.
            PassphraseError: The callback returned no usable passphrase.
        """
        write_key_file(Path(path), self._key, kind="issuer key", passphrase=passphrase)

    @property
    def public(self) -> IssuerPublicKey:
        """The half to give away."""
        return self._public

    @property
    def private_key(self) -> Ed25519PrivateKey:
        """The key itself, for signing."""
        return self._key

    def vault_key(self) -> SecretBytes:
        """Returns the 32-byte key that this issuer's vaults are sealed under: HKDF-SHA256 of the private seed."""
        hkdf = HKDF(SHA256(), length=32, salt=None, info=_VAULT_KEY_INFO)
        return SecretBytes(hkdf.derive(self._key.private_bytes_raw()))

    def __repr__(self) -> str:
        return f"IssuerKey(thumbprint={self.public.thumbprint!r})"
