"""The issuer's private key in a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keylatch.errors import DeviceKeyError
from keylatch.keys._issuer_key import IssuerPublicKey
from keylatch.keys._key_file import read_key_file, write_key_file
from keylatch.keys._passphrase import PassphraseCallback
from keylatch.keys._secret_bytes import SecretBytes, Uncopyable

# Keeps the vault key apart from the signing key, and from what else the seed may give one day (RFC 5869 section 3.2).
_VAULT_KEY_INFO = b"keylatch/1 issuer vault key"


class FileIssuerKey(Uncopyable):
    """An issuer key kept in a file. An `IssuerKey`."""

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

    def sign(self, data: bytes) -> bytes:
        """Returns the Ed25519 signature of `data`, 64 bytes (RFC 8032)."""
        return self._key.sign(data)

    def vault_key(self) -> SecretBytes:
        """Returns the 32-byte key that this issuer's vaults are sealed under: HKDF-SHA256 of the private seed."""
        hkdf = HKDF(SHA256(), length=32, salt=None, info=_VAULT_KEY_INFO)
        return SecretBytes(hkdf.derive(self._key.private_bytes_raw()))

    def __repr__(self) -> str:
        return f"FileIssuerKey(thumbprint={self.public.thumbprint!r})"
