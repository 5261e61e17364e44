"""Private keys on disk: PKCS#8 PEM without a passphrase, a sealed frame around PKCS#8 DER with one; always 0600.

PKCS#8's own encryption (PBES2) is not used: it offers PBKDF2 or scrypt, and Argon2id is what RFC 9106 recommends.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
)

from keylatch.errors import DeviceKeyError, FormatError
from keylatch.keys._files import PRIVATE_MODE, read_private_file, write_file
from keylatch.keys._passphrase import PassphraseCallback, ask_passphrase
from keylatch.keys._sealed import is_sealed, open_with_passphrase, seal_with_passphrase

PrivateKey: TypeAlias = Ed25519PrivateKey | EllipticCurvePrivateKey
KeyKind: TypeAlias = Literal["device key", "issuer key"]

# A PKCS#8 P-256 key is 241 bytes as PEM; room for comments before and after it.
MAX_KEY_FILE_BYTES = 16 * 1024


def write_key_file(path: Path, key: PrivateKey, *, kind: KeyKind, passphrase: PassphraseCallback | None) -> None:
    """Writes a private key, encrypted if there is a passphrase; refuses to overwrite.

    Raises:
        OutputError: The file exists or cannot be written.
        PassphraseError: The callback returned no usable passphrase.
    """
    what = f"{kind} file {path}"
    if passphrase is None:
        data = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    else:
        plaintext = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        data = seal_with_passphrase(plaintext, kind=kind, passphrase=ask_passphrase(passphrase, what))
    write_file(path, data, what=f"{kind} file", mode=PRIVATE_MODE)


def read_key_file(path: Path, *, kind: KeyKind, passphrase: PassphraseCallback | None) -> object:
    """Reads a private key of any type; the caller checks the type.

    Raises:
        DeviceKeyError: The file is missing, unsafe, or holds no private key.
        PassphraseError: The file is encrypted and the passphrase is missing or wrong.
    """
    data = read_private_file(path, what=f"{kind} file", max_bytes=MAX_KEY_FILE_BYTES)
    what = f"{kind} file {path}"
    if not is_sealed(data):
        return _load(load_pem_private_key, data, kind, what)
    try:
        opened = open_with_passphrase(data, kind=kind, passphrase=passphrase, what=what)
    except FormatError as error:
        raise DeviceKeyError(error.message, hint=error.hint) from None
    return _load(load_der_private_key, opened.reveal(), kind, what)


def _load(load: Callable[..., object], data: bytes, kind: KeyKind, what: str) -> object:
    try:
        return load(data, password=None)
    except TypeError:  # how cryptography says that a password is needed
        hint = f"decrypt it with openssl pkey, or generate another {kind}"
        raise DeviceKeyError(f"{what} uses PKCS#8 encryption, which is not supported", hint=hint) from None
    except (ValueError, UnsupportedAlgorithm):
        hint = f"give the {kind} file"
        raise DeviceKeyError(f"{what} holds no private key in PKCS#8 PEM", hint=hint) from None
