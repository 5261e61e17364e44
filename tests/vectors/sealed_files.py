"""Sealed files, made from the format's description: under a passphrase with Argon2id, or under an issuer key."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keylatch.keys import canonical_json
from vectors.named_keys import issuer, private_keys, seed
from vectors.signing import encode

PASSPHRASE = "correct horse"
SALT, NONCE = seed("salt", 16), seed("nonce", 12)
# The smallest that Argon2id takes: a derivation in microseconds. Real files have 3, 65536, 4.
SMALLEST: Mapping[str, Any] = {"iterations": 1, "memory_kib": 8, "lanes": 1}
REAL: Mapping[str, Any] = {"iterations": 3, "memory_kib": 65536, "lanes": 4}


def passphrase_header(kind: str, /, **changes: Any) -> dict[str, Any]:
    """Returns the header of a file under `PASSPHRASE`."""
    return {"kind": kind, "kdf": "argon2id", "salt": encode(SALT).decode(), "params": dict(SMALLEST), **changes}


def issuer_header(kind: str, /, **changes: Any) -> dict[str, Any]:
    """Returns the header of a file under the issuer key ``issuer``."""
    thumbprint = issuer().public.thumbprint
    return {"kind": kind, "kdf": "issuer", "salt": encode(SALT).decode(), "issuer": thumbprint, **changes}


def passphrase_key(passphrase: str = PASSPHRASE, params: Mapping[str, Any] = SMALLEST) -> bytes:
    """Returns the key that a passphrase gives with `SALT`."""
    costs = {"iterations": params["iterations"], "lanes": params["lanes"], "memory_cost": params["memory_kib"]}
    return Argon2id(salt=SALT, length=32, **costs).derive(passphrase.encode())


def issuer_key(kind: str, name: str = "issuer", *, salt: bytes = SALT) -> bytes:
    """Returns the key that an issuer key gives for files of a kind with a salt."""
    secret = private_keys(issuer(name))[0].private_bytes_raw()
    vault_key = HKDF(SHA256(), length=32, salt=None, info=b"keylatch/1 issuer vault key").derive(secret)
    return HKDF(SHA256(), length=32, salt=salt, info=b"keylatch/1 sealed " + kind.encode()).derive(vault_key)


def seal(plaintext: bytes, header: Mapping[str, Any] | bytes, key: bytes, *, version: int = 0x81) -> bytes:
    """Returns a sealed file under a header, given as a value or as bytes."""
    encoded = header if isinstance(header, bytes) else canonical_json(header)
    start = struct.pack("<8sBI", b"KEYLATCH", version, len(encoded)) + encoded
    return start + NONCE + AESGCM(key).encrypt(NONCE, plaintext, start)


def under_passphrase(plaintext: bytes, kind: str, /, **changes: Any) -> bytes:
    """Returns a file under `PASSPHRASE` with another header."""
    return seal(plaintext, passphrase_header(kind, **changes), passphrase_key())


def under_issuer(plaintext: bytes, kind: str, /, **changes: Any) -> bytes:
    """Returns a file under the issuer key with another header."""
    return seal(plaintext, issuer_header(kind, **changes), issuer_key(kind))
