"""Keys in PEM: public ones as they come in by mail, private ones from files."""

from __future__ import annotations

import atexit
import base64
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from fuzz.attempts import REFUSED, attempt, require
from fuzz.byte_source import ByteSource
from fuzz.harnesses import DECISIONS, Harness
from fuzz.mutations import changed
from fuzz.originals import original
from fuzz.token_mutations import decoded
from keylatch.errors import DeviceKeyError, FormatError, PassphraseError
from keylatch.keys import CosignerKey, FileDeviceKey, FileIssuerKey, HybridDeviceKey, IssuerPublicKey, Trust

_PUBLIC = [original(name) for name in ("issuer.pub", "cosigner.pub", "device.pem")]
_PRIVATE = [original(name) for name in ("device.key", "issuer.key", "cosigner.key", "hybrid.key")]
_LOADERS: tuple[type[Any], ...] = (FileDeviceKey, FileIssuerKey, CosignerKey, HybridDeviceKey)
_LABELS = (
    b"PRIVATE KEY", b"PUBLIC KEY", b"EC PRIVATE KEY", b"RSA PRIVATE KEY", b"ENCRYPTED PRIVATE KEY", b"CERTIFICATE",
    b"EC PARAMETERS", b"OPENSSH PRIVATE KEY", b"RSA PUBLIC KEY", b"DSA PRIVATE KEY", b"X",
)  # fmt: skip
# A private key is read from a file of its own.
_FOLDER = Path(tempfile.mkdtemp(prefix="keylatch-fuzz-"))
_PATH = _FOLDER / "key"
_DESCRIPTOR = os.open(_PATH, os.O_WRONLY | os.O_CREAT, 0o600)
atexit.register(shutil.rmtree, _FOLDER, ignore_errors=True)


def read_public(data: bytes) -> None:
    for parse in (IssuerPublicKey.from_pem, Trust.parse):
        key = attempt(parse, data, errors=FormatError)
        if isinstance(key, IssuerPublicKey):
            require(IssuerPublicKey.from_jwk(key.to_jwk()) == key, "a public key changes from PEM to JWK")


def read_private(data: bytes) -> None:
    _write(data)
    for kind in _LOADERS:
        key = attempt(kind.load, _PATH, errors=(DeviceKeyError, PassphraseError))
        if key is not REFUSED:
            require(len(key.public.thumbprint) == 43, "a key without a name")


def read_changed_public(data: bytes) -> None:
    source = ByteSource(data)
    read_public(_changed(source, source.choose(_PUBLIC), source.choose(_PUBLIC + _PRIVATE)))


def read_changed_private(data: bytes) -> None:
    source = ByteSource(data)
    read_private(_changed(source, source.choose(_PRIVATE), source.choose(_PRIVATE + _PUBLIC)))


def _changed(source: ByteSource, data: bytes, other: bytes) -> bytes:
    """The text edited; or the DER inside of it, under the same label or another."""
    if source.below(3) == 0:
        return changed(source, data, other)
    lines = data.split(b"\n")
    der = changed(source, decoded(b"".join(lines[1:-2])), decoded(b"".join(other.split(b"\n")[1:-2])))
    label = source.choose(_LABELS) if source.below(3) == 0 else lines[0].removeprefix(b"-----BEGIN ").rstrip(b"-")
    return _pem(label, der)


def _pem(label: bytes, der: bytes) -> bytes:
    text = base64.b64encode(der)
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return b"\n".join([b"-----BEGIN " + label + b"-----", *lines, b"-----END " + label + b"-----", b""])


def _write(data: bytes) -> None:
    # Cut short afterwards: a file that is emptied first is flushed to disk when it is closed, in milliseconds.
    os.pwrite(_DESCRIPTOR, data, 0)
    os.ftruncate(_DESCRIPTOR, len(data))


HARNESS = Harness(
    attacks=(read_public, read_private, read_changed_public, read_changed_private),
    seeds=(tuple(_PUBLIC), tuple(_PRIVATE), DECISIONS, DECISIONS),
    words=(*(b"-----BEGIN " + label + b"-----" for label in _LABELS), b"-----END", b"Proc-Type: 4,ENCRYPTED\n"),
)
