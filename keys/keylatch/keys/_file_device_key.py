"""A device key in a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDH,
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from keylatch.errors import DeviceKeyError
from keylatch.keys._device_key import COORDINATE_BYTES, DevicePublicKey
from keylatch.keys._key_file import read_key_file, write_key_file
from keylatch.keys._passphrase import PassphraseCallback
from keylatch.keys._secret_bytes import SecretBytes, Uncopyable


class FileDeviceKey(Uncopyable):
    """A device key kept in a file, readable by its owner alone. A `DeviceKey`.

    It protects as well as the file does: whoever copies the file is the device. A passphrase helps while it is not
    in use; only a key in hardware stays on its device.
    """

    __slots__ = ("_key", "_public")

    def __init__(self, key: EllipticCurvePrivateKey) -> None:
        self._key = key
        self._public = DevicePublicKey(key.public_key())

    @classmethod
    def generate(cls, path: str | os.PathLike[str], passphrase: PassphraseCallback | None = None) -> Self:
        """Makes a new key and writes it with mode 0600, encrypted if there is a passphrase; refuses to overwrite.

        Raises:
            OutputError: The file exists or cannot be written.
            PassphraseError: The callback returned no usable passphrase.
        """
        key = generate_private_key(SECP256R1())
        write_key_file(Path(path), key, kind="device key", passphrase=passphrase)
        return cls(key)

    @classmethod
    def load(cls, path: str | os.PathLike[str], passphrase: PassphraseCallback | None = None) -> Self:
        """Reads a key file that `generate` wrote, or any P-256 key in PKCS#8 PEM.

        Raises:
            DeviceKeyError: The file is missing, a link, another user's, open to others, or no P-256 key.
            PassphraseError: The passphrase is missing or wrong.
        """
        key = read_key_file(Path(path), kind="device key", passphrase=passphrase)
        if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
            found = f"device key file {path} holds another kind of key, expected P-256"
            raise DeviceKeyError(found, hint="give the device's key, not the issuer's")
        return cls(key)

    @property
    def public(self) -> DevicePublicKey:
        """The half that licenses are issued to."""
        return self._public

    def exchange(self, peer: EllipticCurvePublicKey) -> SecretBytes:
        """Returns the ECDH shared secret with `peer`: the raw x coordinate, 32 bytes, big-endian.

        Raises:
            DeviceKeyError: `peer` is on another curve.
        """
        if not isinstance(peer.curve, SECP256R1):
            found = f"peer key is on curve {peer.curve.name}, expected P-256"
            raise DeviceKeyError(found, hint="ask the issuer for a license for this device")
        return SecretBytes(self._key.exchange(ECDH(), peer))

    def prove_possession(self, statement: bytes) -> bytes:
        """Returns an ECDSA signature with SHA-256 of `statement`: r and s, 64 bytes; see `ProvingDeviceKey`."""
        r, s = decode_dss_signature(self._key.sign(statement, ECDSA(SHA256())))
        return r.to_bytes(COORDINATE_BYTES, "big") + s.to_bytes(COORDINATE_BYTES, "big")

    def __repr__(self) -> str:
        return f"FileDeviceKey(thumbprint={self.public.thumbprint!r})"


def file_location(location: str) -> str:
    """Returns the path in a ``file:`` URI, what follows the scheme (RFC 8089).

    Raises:
        DeviceKeyError: It names another host.
    """
    # Two slashes bring a host, and only the empty one, file:///path, means this machine.
    if location.startswith("//") and not location.startswith("///"):
        raise DeviceKeyError(f"device key file:{location} is on another host", hint="write file:/path or file:path")
    return location.removeprefix("//")
