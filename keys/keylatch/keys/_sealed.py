"""The sealed frame: an encrypted file under a passphrase, an issuer key or a wrapped key; for private keys and vaults.

    8 bytes   magic, KEYLATCH
    1 byte    0x81: a sealed file, version 1 (a license has its version here, below 0x80)
    4 bytes   length of the header, little-endian
    header    canonical JSON: kind, kdf, salt, and the kdf's parameters, the issuer's thumbprint or the wrapped key
    12 bytes  nonce
    rest      AES-256-GCM ciphertext and tag; everything before the nonce is associated data

The key is fresh for every file, because the salt is: two files never share a key, so nonces cannot collide.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keylatch.errors import DeviceKeyError, FormatError, PassphraseError
from keylatch.keys._encoding import canonical_json, decode_base64url, encode_base64url, parse_json_object
from keylatch.keys._passphrase import Argon2Parameters, PassphraseCallback, ask_passphrase, derive_key
from keylatch.keys._secret_bytes import SecretBytes

Kind: TypeAlias = Literal["device key", "issuer key", "cosigner key", "vault"]

MAGIC = b"KEYLATCH"
SEALED_VERSION = 0x81
MAX_HEADER_BYTES = 1024
SALT_BYTES = 16
NONCE_BYTES = 12
TAG_BYTES = 16

_PREFIX = struct.Struct("<8sBI")
# What sealing adds to a plaintext at most.
MAX_OVERHEAD_BYTES = _PREFIX.size + MAX_HEADER_BYTES + NONCE_BYTES + TAG_BYTES
_HINT = "get an undamaged copy of the file"


@dataclass(frozen=True, slots=True)
class SealedFrame:
    """A sealed file taken apart; nothing is decrypted or trusted yet."""

    header: dict[str, Any]
    salt: bytes
    associated_data: bytes
    nonce: bytes
    ciphertext: bytes


def is_sealed(data: bytes) -> bool:
    """Tells a sealed file from anything else by its first nine bytes."""
    return data[:9] == MAGIC + bytes([SEALED_VERSION])


def seal_with_passphrase(plaintext: bytes, *, kind: Kind, passphrase: SecretBytes) -> bytes:
    """Returns a sealed file under a passphrase, with Argon2id at this version's parameters."""
    parameters, salt = Argon2Parameters(), os.urandom(SALT_BYTES)
    header = {"kind": kind, "kdf": "argon2id", "salt": encode_base64url(salt), "params": asdict(parameters)}
    return _seal(plaintext, header, derive_key(passphrase, salt, parameters))


def seal_with_key(plaintext: bytes, *, kind: Kind, key: SecretBytes, thumbprint: str) -> bytes:
    """Returns a sealed file under a 32-byte key that the issuer key `thumbprint` gives."""
    salt = os.urandom(SALT_BYTES)
    header = {"kind": kind, "kdf": "issuer", "salt": encode_base64url(salt), "issuer": thumbprint}
    return _seal(plaintext, header, _derive_file_key(key, salt, kind))


def open_with_passphrase(data: bytes, *, kind: Kind, passphrase: PassphraseCallback | None, what: str) -> SecretBytes:
    """Opens a file sealed under a passphrase.

    Raises:
        FormatError: Not a sealed file of this kind and way of sealing.
        PassphraseError: The passphrase is missing or wrong; a damaged file looks the same.
    """
    frame = _parse(data, kind, "argon2id", "params", what)
    params = frame.header["params"]
    if not isinstance(params, dict) or set(params) != {"iterations", "memory_kib", "lanes"}:
        raise FormatError(f"{what} has unknown Argon2id parameters", hint=_HINT)
    key = derive_key(ask_passphrase(passphrase, what), frame.salt, Argon2Parameters(**params))
    try:
        return _open(frame, key)
    except InvalidTag:
        hint = "try the passphrase again; if it is right, the file is damaged"
        raise PassphraseError(f"wrong passphrase for {what}", hint=hint) from None


def open_with_key(data: bytes, *, kind: Kind, key: SecretBytes, thumbprint: str, what: str) -> SecretBytes:
    """Opens a file sealed under the key that the issuer key `thumbprint` gives.

    Raises:
        FormatError: Not a sealed file of this kind and way of sealing, or damaged.
        DeviceKeyError: Sealed under another issuer key.
    """
    frame = _parse(data, kind, "issuer", "issuer", what)
    if frame.header["issuer"] != thumbprint:
        found = f"{what} is sealed under issuer key {ascii(frame.header['issuer'])[1:-1]:.43}, got {thumbprint}"
        raise DeviceKeyError(found, hint="open it with the issuer key it was sealed under")
    try:
        return _open(frame, _derive_file_key(key, frame.salt, kind))
    except InvalidTag:
        raise FormatError(f"{what} is damaged: its seal does not hold", hint=_HINT) from None


def seal_with_data_key(plaintext: bytes, *, kind: Kind, key: SecretBytes, wrapping: Mapping[str, str]) -> bytes:
    """Returns a sealed file under a 32-byte data key made for it by AWS KMS.

    Args:
        plaintext: What to seal.
        kind: What it is.
        key: The data key.
        wrapping: How to have the data key unwrapped again; goes into the header, with the few hundred bytes there.
    """
    salt = os.urandom(SALT_BYTES)
    header = {"kind": kind, "kdf": "awskms", "salt": encode_base64url(salt), "awskms": dict(wrapping)}
    return _seal(plaintext, header, _derive_file_key(key, salt, kind))


def read_wrapping(data: bytes, *, kind: Kind, what: str) -> object:
    """Returns how a file's data key is to be unwrapped: any JSON value, and not authenticated before it is opened.

    Raises:
        FormatError: Not a sealed file of this kind and way of sealing.
    """
    wrapping: object = _parse(data, kind, "awskms", "awskms", what).header["awskms"]
    return wrapping


def open_with_data_key(data: bytes, *, kind: Kind, key: SecretBytes, what: str) -> SecretBytes:
    """Opens a file sealed under a data key.

    Raises:
        FormatError: Not a sealed file of this kind and way of sealing, or damaged.
    """
    frame = _parse(data, kind, "awskms", "awskms", what)
    try:
        return _open(frame, _derive_file_key(key, frame.salt, kind))
    except InvalidTag:
        raise FormatError(f"{what} is damaged: its seal does not hold", hint=_HINT) from None


def is_sealed_under_passphrase(data: bytes) -> bool:
    """Whether a sealed file asks for a passphrase; for choosing how to open it, decides nothing."""
    end = _PREFIX.size + _PREFIX.unpack_from(data)[2] if len(data) >= _PREFIX.size and is_sealed(data) else 0
    return b'"kdf":"argon2id"' in data[: min(end, _PREFIX.size + MAX_HEADER_BYTES)]


def _derive_file_key(key: SecretBytes, salt: bytes, kind: Kind) -> SecretBytes:
    info = b"keylatch/1 sealed " + kind.encode("ascii")
    return SecretBytes(HKDF(SHA256(), length=32, salt=salt, info=info).derive(key.reveal()))


def _seal(plaintext: bytes, header: Mapping[str, object], key: SecretBytes) -> bytes:
    encoded = canonical_json(header)
    associated_data = _PREFIX.pack(MAGIC, SEALED_VERSION, len(encoded)) + encoded
    nonce = os.urandom(NONCE_BYTES)
    return associated_data + nonce + AESGCM(key.reveal()).encrypt(nonce, plaintext, associated_data)


def _open(frame: SealedFrame, key: SecretBytes) -> SecretBytes:
    return SecretBytes(AESGCM(key.reveal()).decrypt(frame.nonce, frame.ciphertext, frame.associated_data))


def _parse(data: bytes, kind: Kind, kdf: str, kdf_field: str, what: str) -> SealedFrame:
    if not is_sealed(data) or len(data) < _PREFIX.size:
        raise FormatError(f"{what} is not a sealed {kind}", hint=f"give the {kind} file")
    end = _PREFIX.size + _PREFIX.unpack_from(data)[2]
    if end > _PREFIX.size + MAX_HEADER_BYTES or end + NONCE_BYTES + TAG_BYTES > len(data):
        raise FormatError(f"{what} is truncated or its header is too long", hint=_HINT)
    header = parse_json_object(data[_PREFIX.size : end], f"header of {what}")
    if canonical_json(header) != data[_PREFIX.size : end]:
        raise FormatError(f"header of {what} is not canonical JSON", hint=_HINT)
    _check_header(header, kind, kdf, kdf_field, what)
    salt = decode_base64url(header["salt"], f"salt of {what}")
    if len(salt) != SALT_BYTES:
        raise FormatError(f"{what} has a salt of {len(salt)} bytes, expected {SALT_BYTES}", hint=_HINT)
    return SealedFrame(header, salt, data[:end], data[end : end + NONCE_BYTES], data[end + NONCE_BYTES :])


def _check_header(header: dict[str, Any], kind: Kind, kdf: str, kdf_field: str, what: str) -> None:
    if header.get("kind") != kind:
        found = f"{what} is a sealed {ascii(header.get('kind'))[1:-1]:.20}, expected a sealed {kind}"
        raise FormatError(found, hint=f"give the {kind} file")
    if header.get("kdf") != kdf:
        sealed_under = {"argon2id": "a passphrase", "issuer": "an issuer key", "awskms": "a key of AWS KMS"}
        found = sealed_under.get(str(header.get("kdf")), "an unknown kind of key")
        raise FormatError(f"{what} is sealed under {found}, got {sealed_under[kdf]}", hint=f"open it with {found}")
    if set(header) != {"kind", "kdf", "salt", kdf_field}:
        raise FormatError(f"header of {what} has missing or unknown fields", hint=_HINT)
