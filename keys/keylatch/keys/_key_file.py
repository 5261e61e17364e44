"""Private keys on disk: PKCS#8 PEM without a passphrase, a sealed frame around PKCS#8 with one; always 0600.

PKCS#8's own encryption (PBES2) is not used: it offers PBKDF2 or scrypt, and Argon2id is what RFC 9106 recommends.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
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
from keylatch.keys._secret_bytes import SecretBytes

PrivateKey: TypeAlias = Ed25519PrivateKey | EllipticCurvePrivateKey | MLDSA65PrivateKey
KeyPair: TypeAlias = tuple[MLKEM768PrivateKey, X25519PrivateKey]
KeyKind: TypeAlias = Literal["device key", "issuer key", "cosigner key"]

# A PKCS#8 P-256 key is 241 bytes as PEM; room for comments before and after it.
MAX_KEY_FILE_BYTES = 16 * 1024


def write_key_file(path: Path, key: PrivateKey, *, kind: KeyKind, passphrase: PassphraseCallback | None) -> None:
    """Writes a private key, encrypted if there is a passphrase; refuses to overwrite.

    Raises:
        OutputError: The file exists or cannot be written.
        PassphraseError: The callback returned no usable passphrase.
    """
    encoding = Encoding.PEM if passphrase is None else Encoding.DER
    _write(path, key.private_bytes(encoding, PrivateFormat.PKCS8, NoEncryption()), kind, passphrase)


def write_key_pair_file(path: Path, keys: KeyPair, *, kind: KeyKind, passphrase: PassphraseCallback | None) -> None:
    """Writes two private keys that belong together, one PEM after the other; otherwise as `write_key_file`."""
    pems = (key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) for key in keys)
    _write(path, b"".join(pems), kind, passphrase)


def read_key_file(path: Path, *, kind: KeyKind, passphrase: PassphraseCallback | None) -> object:
    """Reads a private key of any type; the caller checks the type.

    Raises:
        DeviceKeyError: The file is missing, unsafe, or does not hold one private key.
        PassphraseError: The file is encrypted and the passphrase is missing or wrong.
    """
    what = f"{kind} file {path}"
    data, sealed = _read(path, kind, passphrase)
    # The PEM reader would take the first of two keys; and a sealed pair is PEM, where a single key is DER.
    if data.reveal().count(_PEM_START) > 1:
        hint = f"if it is a hybrid device key, name it hybrid:{path}"
        raise DeviceKeyError(f"{what} holds several private keys, expected one", hint=hint)
    return _load(load_der_private_key if sealed else load_pem_private_key, data.reveal(), kind, what)


def read_key_pair_file(path: Path, *, kind: KeyKind, passphrase: PassphraseCallback | None) -> tuple[object, object]:
    """Reads two private keys that `write_key_pair_file` wrote; the caller checks their types.

    Raises:
        DeviceKeyError: The file is missing, unsafe, or does not hold two private keys.
        PassphraseError: The file is encrypted and the passphrase is missing or wrong.
    """
    what = f"{kind} file {path}"
    pems = _read(path, kind, passphrase)[0].reveal().split(_PEM_START)
    if len(pems) != 3 or pems[0].strip():
        hint = f"if it is a P-256 key, name it file:{path}"
        raise DeviceKeyError(f"{what} does not hold two private keys, as a hybrid key does", hint=hint)
    first, second = (_load(load_pem_private_key, _PEM_START + pem, kind, what) for pem in pems[1:])
    return first, second


_PEM_START = b"-----BEGIN PRIVATE KEY-----"


def _write(path: Path, plaintext: bytes, kind: KeyKind, passphrase: PassphraseCallback | None) -> None:
    if passphrase is not None:
        asked = ask_passphrase(passphrase, f"{kind} file {path}")
        plaintext = seal_with_passphrase(plaintext, kind=kind, passphrase=asked)
    write_file(path, plaintext, what=f"{kind} file", mode=PRIVATE_MODE)


def _read(path: Path, kind: KeyKind, passphrase: PassphraseCallback | None) -> tuple[SecretBytes, bool]:
    data = read_private_file(path, what=f"{kind} file", max_bytes=MAX_KEY_FILE_BYTES)
    if not is_sealed(data):
        return SecretBytes(data), False
    try:
        return open_with_passphrase(data, kind=kind, passphrase=passphrase, what=f"{kind} file {path}"), True
    except FormatError as error:
        raise DeviceKeyError(error.message, hint=error.hint) from None


def _load(load: Callable[..., object], data: bytes, kind: KeyKind, what: str) -> object:
    try:
        return load(data, password=None)
    except TypeError:  # how cryptography says that a password is needed
        hint = f"decrypt it with openssl pkey, or generate another {kind}"
        raise DeviceKeyError(f"{what} uses PKCS#8 encryption, which is not supported", hint=hint) from None
    except (ValueError, UnsupportedAlgorithm, InternalError):  # InternalError: an Ed448 key of another length
        hint = f"give the {kind} file"
        raise DeviceKeyError(f"{what} holds no private key in PKCS#8 PEM", hint=hint) from None
