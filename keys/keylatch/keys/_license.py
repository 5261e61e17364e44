"""The license file, format 1: parsing and serialising, side by side.

    8 bytes   magic, KEYLATCH
    1 byte    version, 1
    12 bytes  three lengths in bytes, each 32 bits little-endian: JWT, JWE, blob
    JWT       signed claims, compact JWS (RFC 7515, RFC 7519), and a cosignature if there is one
    JWE       the content key, wrapped for each device, general JSON (RFC 7516)
    blob      12-byte nonce, AES-256-GCM ciphertext and tag: the secret values as safetensors

The parts end exactly where the file does. Framing says nothing about trust: see `verify_license`.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

from keylatch.errors import FormatError
from keylatch.keys._files import PUBLIC_MODE, read_public_file, write_file
from keylatch.keys._sealed import MAGIC, is_sealed

LICENSE_VERSION = 1

# 1024 devices' thumbprints take 64 KiB of the JWT, and 440 KiB of the JWE, or 1.8 MiB if they are post-quantum.
MAX_JWT_BYTES = 96 * 1024
MAX_JWE_BYTES = 2 * 1024 * 1024
MAX_BLOB_BYTES = 256 * 1024 * 1024

_FRAME = struct.Struct("<8sB3I")
MAX_LICENSE_BYTES = _FRAME.size + MAX_JWT_BYTES + MAX_JWE_BYTES + MAX_BLOB_BYTES

_LIMITS = (("JWT", MAX_JWT_BYTES), ("JWE", MAX_JWE_BYTES), ("blob", MAX_BLOB_BYTES))
_HINT = "get an undamaged copy of the license"


@dataclass(frozen=True, slots=True, repr=False)
class License:
    """A license taken apart; nothing in it is verified.

    Args:
        jwt: Signed claims, ASCII.
        jwe: Wrapped content key, JSON.
        blob: Encrypted secret values.

    Raises:
        FormatError: A part is empty or larger than its limit.
    """

    jwt: bytes
    jwe: bytes
    blob: bytes

    def __post_init__(self) -> None:
        for (name, limit), part in zip(_LIMITS, (self.jwt, self.jwe, self.blob), strict=True):
            _check_length(name, len(part), limit)

    def serialize(self) -> bytes:
        """Returns the license file's bytes; `parse_license` reads them back."""
        lengths = (len(self.jwt), len(self.jwe), len(self.blob))
        return _FRAME.pack(MAGIC, LICENSE_VERSION, *lengths) + self.jwt + self.jwe + self.blob

    def __repr__(self) -> str:
        sizes = f"jwt_bytes={len(self.jwt)}, jwe_bytes={len(self.jwe)}, blob_bytes={len(self.blob)}"
        return f"License({sizes})"


def parse_license(data: bytes) -> License:
    """Takes a license file apart; every length is bounded before it is used.

    Raises:
        FormatError: No license, another version, truncated, or bytes left over.
    """
    _check_start(data)
    if len(data) < _FRAME.size:
        raise FormatError(f"license is truncated: got {len(data)} bytes, expected {_FRAME.size} or more", hint=_HINT)
    jwt_bytes, jwe_bytes, blob_bytes = _FRAME.unpack_from(data)[2:]
    for (name, limit), length in zip(_LIMITS, (jwt_bytes, jwe_bytes, blob_bytes), strict=True):
        _check_length(name, length, limit)
    expected = _FRAME.size + jwt_bytes + jwe_bytes + blob_bytes
    if len(data) != expected:
        raise FormatError(f"license has {len(data)} bytes, expected {expected}", hint=_HINT)
    jwe_start = _FRAME.size + jwt_bytes
    blob_start = jwe_start + jwe_bytes
    return License(data[_FRAME.size : jwe_start], data[jwe_start:blob_start], data[blob_start:])


def _check_start(data: bytes) -> None:
    if is_sealed(data):
        raise FormatError("this is a sealed vault or key file, expected a license", hint="give the license file")
    if data[:8] != MAGIC:
        raise FormatError("not a license: it does not start with KEYLATCH", hint="give the license file")
    if len(data) > 8 and data[8] != LICENSE_VERSION:
        hint = "upgrade keylatch, or ask the issuer for a license in this version"
        raise FormatError(f"license has format version {data[8]}, expected {LICENSE_VERSION}", hint=hint)


def _check_length(name: str, length_bytes: int, limit_bytes: int) -> None:
    if not 1 <= length_bytes <= limit_bytes:
        raise FormatError(f"license {name} has {length_bytes} bytes, expected 1 to {limit_bytes}", hint=_HINT)


def read_license(path: str | os.PathLike[str]) -> License:
    """Reads a license file.

    Raises:
        FormatError: Missing, too large, or not a license.
    """
    return parse_license(read_public_file(Path(path), what="license", max_bytes=MAX_LICENSE_BYTES))


def write_license(path: str | os.PathLike[str], license: License, *, overwrite: bool = False) -> None:
    """Writes a license file atomically; it holds no secret that its device's key does not guard.

    Raises:
        OutputError: The file exists (and `overwrite` is off), or it cannot be written.
    """
    write_file(Path(path), license.serialize(), what="license", mode=PUBLIC_MODE, overwrite=overwrite)
