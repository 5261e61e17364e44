"""Throw-away keys by name. They come from their names, so everybody has them: for tests alone."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, derive_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from keylatch.keys import CosignerKey, FileDeviceKey, FileIssuerKey, HybridDeviceKey, canonical_json
from vectors.vector_file import FOLDER

KEYS = FOLDER / "keys"

ISSUERS = ("issuer", "retired-issuer", "foreign-issuer")
COSIGNERS = ("cosigner", "foreign-cosigner")
DEVICES = ("device", "second-device", "foreign-device")
HYBRIDS = ("hybrid", "foreign-hybrid")


def seed(name: str, count: int = 32) -> bytes:
    """Returns bytes that depend on a name alone."""
    return hashlib.shake_256(b"keylatch test vectors " + name.encode()).digest(count)


@functools.cache
def issuer(name: str = "issuer") -> FileIssuerKey:
    return FileIssuerKey(Ed25519PrivateKey.from_private_bytes(seed(name)))


@functools.cache
def cosigner(name: str = "cosigner") -> CosignerKey:
    return CosignerKey(MLDSA65PrivateKey.from_seed_bytes(seed(name)))


@functools.cache
def device(name: str = "device") -> FileDeviceKey:
    return FileDeviceKey(derive_private_key(int.from_bytes(seed(name)) >> 1, SECP256R1()))


@functools.cache
def hybrid(name: str = "hybrid") -> HybridDeviceKey:
    keys = seed(name, 96)
    return HybridDeviceKey(
        MLKEM768PrivateKey.from_seed_bytes(keys[:64]), X25519PrivateKey.from_private_bytes(keys[64:])
    )


def any_device(name: str) -> FileDeviceKey | HybridDeviceKey:
    return hybrid(name) if name in HYBRIDS else device(name)


def private_keys(key: Any) -> list[Any]:
    """Returns the library's private keys that one of ours is made of."""
    return [key._mlkem, key._x25519] if isinstance(key, HybridDeviceKey) else [key._key]


def key_files() -> dict[str, bytes]:
    """Returns the files of all keys: private ones as PKCS#8 PEM, public ones as devices and issuers give them."""
    makers: Mapping[Callable[..., Any], tuple[str, ...]] = {
        issuer: ISSUERS,
        cosigner: COSIGNERS,
        device: DEVICES,
        hybrid: HYBRIDS,
    }
    files = {}
    for make, names in makers.items():
        for name in names:
            key = make(name)
            files[f"{name}.key"] = b"".join(map(_private_pem, private_keys(key)))
            files[f"{name}.pub"] = _public_file(key)
    return files


def _private_pem(key: Any) -> bytes:
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _public_file(key: Any) -> bytes:
    if isinstance(key, (FileDeviceKey, HybridDeviceKey)):
        return canonical_json(key.public.to_jwk()) + b"\n"
    return bytes(key.public.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
