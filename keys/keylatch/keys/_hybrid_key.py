"""The post-quantum device key: an ML-KEM-768 and an X25519 key pair, used together as HPKE's MLKEM768-X25519.

Whoever breaks one of the two still lacks the other. There is no such key in TPMs or HSMs yet: it lives in a file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from keylatch.errors import DeviceKeyError, FormatError, IntegrityError
from keylatch.keys._encoding import canonical_json, decode_base64url, encode_base64url
from keylatch.keys._files import PUBLIC_MODE, write_file
from keylatch.keys._key_file import read_key_pair_file, write_key_pair_file
from keylatch.keys._passphrase import PassphraseCallback
from keylatch.keys._secret_bytes import SecretBytes, Uncopyable

# Key type AKP of RFC 9964, public key as in draft-ietf-hpke-pq; the algorithm's name is ours: JOSE has registered none.
KEY_TYPE = "AKP"
KEM_NAME = "MLKEM768-X25519"
PUBLIC_KEY_BYTES = 1184 + 32
ENCAPSULATED_KEY_BYTES = KEM.MLKEM768_X25519.enc_length()

_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_HINT = "ask the device's owner for its public key file again"


@dataclass(frozen=True, slots=True)
class HybridPublicKey:
    """The public half of a hybrid device key; licenses are encrypted to it.

    Args:
        data: ML-KEM-768 encapsulation key, then X25519 public key: 1216 bytes.

    Attributes:
        thumbprint: RFC 7638 thumbprint over ``alg``, ``kty`` and ``pub``, base64url, 43 characters.

    Raises:
        FormatError: Another length, or no ML-KEM-768 key.
    """

    data: bytes = field(repr=False, compare=False)
    thumbprint: str = field(init=False)

    def __post_init__(self) -> None:
        self._keys()
        digest = hashlib.sha256(canonical_json(self._required_members())).digest()
        object.__setattr__(self, "thumbprint", encode_base64url(digest))

    def seal(self, plaintext: bytes, info: bytes) -> tuple[bytes, bytes]:
        """Returns HPKE's encapsulated key, 1120 bytes, and the ciphertext with its tag (RFC 9180 section 6.1)."""
        sealed = _SUITE.encrypt(plaintext, MLKEM768X25519PublicKey(*self._keys()), info)
        return sealed[:ENCAPSULATED_KEY_BYTES], sealed[ENCAPSULATED_KEY_BYTES:]

    def to_jwk(self) -> dict[str, str]:
        """Returns the public JWK, with the thumbprint as ``kid``."""
        return {**self._required_members(), "kid": self.thumbprint}

    @classmethod
    def from_jwk(cls, jwk: Mapping[str, object]) -> Self:
        """Reads a public hybrid JWK.

        Raises:
            FormatError: A private or unknown member, another algorithm, a malformed key, or a foreign ``kid``.
        """
        if "priv" in jwk:
            raise FormatError("JWK holds a private key, expected a public one", hint="never send the private key")
        if not {"kty", "alg", "pub"} <= set(jwk) <= {"kty", "alg", "pub", "kid"}:
            raise FormatError("JWK members are not those of a public hybrid key", hint=_HINT)
        if (jwk["kty"], jwk["alg"]) != (KEY_TYPE, KEM_NAME):
            raise FormatError(f"JWK is not a {KEM_NAME} key", hint=_HINT)
        public = cls(decode_base64url(jwk["pub"], "JWK pub"))
        if jwk.get("kid", public.thumbprint) != public.thumbprint:
            raise FormatError(f"JWK has a foreign kid, expected its thumbprint {public.thumbprint}", hint=_HINT)
        return public

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the JWK as one line of canonical JSON; refuses to overwrite.

        Raises:
            OutputError: The file exists or cannot be written.
        """
        data = canonical_json(self.to_jwk()) + b"\n"
        write_file(Path(path), data, what="device public key file", mode=PUBLIC_MODE)

    def _required_members(self) -> dict[str, str]:
        return {"alg": KEM_NAME, "kty": KEY_TYPE, "pub": encode_base64url(self.data)}

    def _keys(self) -> tuple[MLKEM768PublicKey, X25519PublicKey]:
        if len(self.data) != PUBLIC_KEY_BYTES:
            found = f"hybrid public key has {len(self.data)} bytes, expected {PUBLIC_KEY_BYTES}"
            raise FormatError(found, hint=_HINT)
        try:
            mlkem = MLKEM768PublicKey.from_public_bytes(self.data[:-32])
        except (ValueError, UnsupportedAlgorithm):
            raise FormatError("hybrid public key holds no ML-KEM-768 key", hint=_HINT) from None
        return mlkem, X25519PublicKey.from_public_bytes(self.data[-32:])


class HybridDeviceKey(Uncopyable):
    """A post-quantum device key in a file: two PKCS#8 keys, sealed under a passphrase if there is one.

    It cannot prove possession of itself ahead, as a KEM key signs nothing: that a license opens is the proof.
    """

    __slots__ = ("_mlkem", "_public", "_x25519")

    def __init__(self, mlkem: MLKEM768PrivateKey, x25519: X25519PrivateKey) -> None:
        self._mlkem, self._x25519 = mlkem, x25519
        self._public = HybridPublicKey(mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw())

    @classmethod
    def generate(cls, path: str | os.PathLike[str], passphrase: PassphraseCallback | None = None) -> Self:
        """Makes a new key and writes it with mode 0600, encrypted if there is a passphrase; refuses to overwrite.

        Raises:
            OutputError: The file exists or cannot be written.
            PassphraseError: The callback returned no usable passphrase.
        """
        keys = (MLKEM768PrivateKey.generate(), X25519PrivateKey.generate())
        write_key_pair_file(Path(path), keys, kind="device key", passphrase=passphrase)
        return cls(*keys)

    @classmethod
    def load(cls, path: str | os.PathLike[str], passphrase: PassphraseCallback | None = None) -> Self:
        """Reads a key file that `generate` wrote.

        Raises:
            DeviceKeyError: The file is missing, a link, another user's, open to others, or no hybrid key.
            PassphraseError: The passphrase is missing or wrong.
        """
        mlkem, x25519 = read_key_pair_file(Path(path), kind="device key", passphrase=passphrase)
        if not isinstance(mlkem, MLKEM768PrivateKey) or not isinstance(x25519, X25519PrivateKey):
            found = f"device key file {path} holds other keys, expected ML-KEM-768 and X25519"
            raise DeviceKeyError(found, hint="give the file that was made with hybrid:")
        return cls(mlkem, x25519)

    @property
    def public(self) -> HybridPublicKey:
        """The half that licenses are issued to."""
        return self._public

    def open(self, encapsulated_key: bytes, ciphertext: bytes, info: bytes) -> SecretBytes:
        """Opens what `HybridPublicKey.seal` made.

        Raises:
            IntegrityError: Sealed to another key or with other `info`, or altered.
        """
        # HPKE joins the two again: a boundary that stood elsewhere would be a second form of the same license.
        if len(encapsulated_key) != ENCAPSULATED_KEY_BYTES:
            raise IntegrityError
        key = MLKEM768X25519PrivateKey(self._mlkem, self._x25519)
        try:
            return SecretBytes(_SUITE.decrypt(encapsulated_key + ciphertext, key, info))
        except (InvalidTag, ValueError):
            raise IntegrityError from None

    def private_seed(self) -> SecretBytes:
        """Returns both private keys, 96 bytes, for deriving the device's other secrets."""
        return SecretBytes(self._mlkem.private_bytes_raw() + self._x25519.private_bytes_raw())

    def __repr__(self) -> str:
        return f"HybridDeviceKey(thumbprint={self.public.thumbprint!r})"
