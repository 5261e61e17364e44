"""Secrets that only one device key gives, derived from the two things that every such key can do."""

from __future__ import annotations

from typing import TypeAlias

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keylatch.keys._device_key import DeviceKey, DevicePublicKey
from keylatch.keys._hybrid_key import HybridDeviceKey, HybridPublicKey
from keylatch.keys._secret_bytes import SecretBytes

AnyDeviceKey: TypeAlias = DeviceKey | HybridDeviceKey
AnyDevicePublicKey: TypeAlias = DevicePublicKey | HybridPublicKey


def derive_device_secret(key: AnyDeviceKey, info: bytes) -> SecretBytes:
    """Returns 32 bytes that only this device key gives: HKDF-SHA256 with `info` for their purpose (RFC 5869).

    A P-256 key agrees with its own public key. That needs the private half, and whoever could compute it from the
    public one could solve the square Diffie-Hellman problem, which is as hard as Diffie-Hellman.

    Raises:
        DeviceKeyError: The key cannot be used.
    """
    secret = key.private_seed() if isinstance(key, HybridDeviceKey) else key.exchange(key.public.key)
    return SecretBytes(HKDF(SHA256(), length=32, salt=None, info=info).derive(secret.reveal()))
