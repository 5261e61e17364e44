"""Device and issuer keys inside PKCS#11 tokens: HSMs, smart cards, SoftHSM.

    _uri            RFC 7512 URIs: which module, token and key, and where the PIN is
    _errors         what tokens answer, as errors with hints
    _module         a vendor's library, loaded once and called by one thread at a time
    _login          finding the token, logging in, and one session for all its keys
    _objects        finding keys on the token, their attributes, and making new ones
    _public_points  public keys as tokens encode them
    _device         a P-256 device key
    _issuer         an Ed25519 issuer key

The private keys are made on the token and never leave it. Needs python-pkcs11, the extra `pkcs11`.
"""

from __future__ import annotations

from keylatch.keys._pkcs11._device import TokenDeviceKey, generate_device_key, open_device_key
from keylatch.keys._pkcs11._issuer import TokenIssuerKey, generate_issuer_key, open_issuer_key

__all__ = [
    "TokenDeviceKey",
    "TokenIssuerKey",
    "generate_device_key",
    "generate_issuer_key",
    "open_device_key",
    "open_issuer_key",
]
