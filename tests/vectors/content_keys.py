"""What an issuer knows of its own license: the content key. Written from the RFCs, not with the library's reader."""

from __future__ import annotations

import hashlib
import json
import struct

from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDH,
    SECP256R1,
    SECP384R1,
    EllipticCurvePublicNumbers,
    derive_private_key,
)
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap

from keylatch.keys import License, canonical_json
from vectors.named_keys import device, private_keys, seed
from vectors.signing import decode, encode, payload_of, with_parts


def content_key(license: License) -> bytes:
    """Returns the content key of a license for the device ``device`` alone."""
    jwe = json.loads(license.jwe)
    iv, content, tag = (decode(jwe[name].encode()) for name in ("iv", "ciphertext", "tag"))
    return AESGCM(_encryption_key(jwe)).decrypt(iv, content + tag, jwe["protected"].encode())


def seal_content_key(license: License, key: bytes) -> License:
    """Returns the license with another content key in its JWE, rightly encrypted and signed."""
    jwe = json.loads(license.jwe)
    iv = decode(jwe["iv"].encode())
    sealed = AESGCM(_encryption_key(jwe)).encrypt(iv, key, jwe["protected"].encode())
    jwe |= {"ciphertext": encode(sealed[:-16]).decode(), "tag": encode(sealed[-16:]).decode()}
    return with_parts(license, jwe=canonical_json(jwe))


def seal_blob(
    license: License, plaintext: bytes, *, license_id: str | None = None, key: bytes | None = None
) -> License:
    """Returns the license with another plaintext in its blob, rightly encrypted and signed."""
    associated_data = f"keylatch/1 secrets{license_id or payload_of(license)['jti']}".encode()
    nonce = seed("blob nonce", 12)
    return with_parts(
        license, blob=nonce + AESGCM(key or content_key(license)).encrypt(nonce, plaintext, associated_data)
    )


def p384_key() -> dict[str, str]:
    """Returns a point of P-384 as a JWK."""
    numbers = derive_private_key(7, SECP384R1()).public_key().public_numbers()
    x, y = (encode(value.to_bytes(48)).decode() for value in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": "P-384", "x": x, "y": y}


def _encryption_key(jwe: dict[str, object]) -> bytes:
    recipients = jwe["recipients"]
    assert isinstance(recipients, list)
    header = recipients[0]["header"]
    x, y = (int.from_bytes(decode(header["epk"][name].encode())) for name in ("x", "y"))
    shared = private_keys(device())[0].exchange(ECDH(), EllipticCurvePublicNumbers(x, y, SECP256R1()).public_key())
    # RFC 7518 section 4.6.2; one round, as SHA-256 gives the 256 bits that A256KW takes.
    names = [b"ECDH-ES+A256KW", decode(header["apu"].encode()), decode(header["apv"].encode())]
    other = b"".join(struct.pack(">I", len(name)) + name for name in names) + struct.pack(">I", 256)
    wrapping_key = hashlib.sha256(struct.pack(">I", 1) + shared + other).digest()
    return aes_key_unwrap(wrapping_key, decode(recipients[0]["encrypted_key"].encode()))
