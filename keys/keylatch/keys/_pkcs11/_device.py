"""A device key on a token: P-256, for ECDH."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pkcs11
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDH,
    SECP256R1,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pkcs11 import KDF, Attribute, KeyType, Mechanism

from keylatch.errors import DeviceKeyError
from keylatch.keys._device_key import COORDINATE_BYTES, DevicePublicKey
from keylatch.keys._passphrase import PassphraseCallback
from keylatch.keys._pkcs11._login import TokenSession, logged_in
from keylatch.keys._pkcs11._objects import (
    check_permitted,
    find_private_key,
    find_public_key,
    generate_on_token,
    generate_pair,
)
from keylatch.keys._pkcs11._public_points import P256_PARAMETERS, parse_device_point
from keylatch.keys._pkcs11._uri import KeyUri, parse_key_uri
from keylatch.keys._secret_bytes import SecretBytes, Uncopyable


class TokenDeviceKey(Uncopyable):
    """A device key on a PKCS#11 token, which does the arithmetic: the private key never leaves it. A `DeviceKey`.

    Several threads may use one key. A process made by fork may not: it opens its own.
    """

    __slots__ = ("_private", "_public", "_token", "_uri")

    def __init__(self, token: TokenSession, uri: KeyUri) -> None:
        self._token, self._uri = token, uri
        with token.calls() as session:
            self._private = find_private_key(session, uri, KeyType.EC, Attribute.DERIVE)
            public = find_public_key(session, self._private, uri)
            self._public = parse_device_point(public[Attribute.EC_PARAMS], public[Attribute.EC_POINT], uri.key_name)
            self._check_pair()

    @property
    def public(self) -> DevicePublicKey:
        """The half that licenses are issued to."""
        return self._public

    def exchange(self, peer: EllipticCurvePublicKey) -> SecretBytes:
        """Returns the ECDH shared secret with `peer`: the raw x coordinate, 32 bytes, big-endian.

        Raises:
            DeviceKeyError: `peer` is on another curve or on none, the key was closed, or the token failed.
        """
        point = _encode_peer(peer)
        with self._token.calls():
            return self._derive(point)

    def prove_possession(self, statement: bytes) -> bytes:
        """Returns an ECDSA signature with SHA-256 of `statement`: r and s, 64 bytes; see `ProvingDeviceKey`.

        Raises:
            DeviceKeyError: The key may not sign, was closed, or the token failed.
        """
        # CKM_ECDSA on a digest made here: SoftHSM 2.6 and many tokens have no CKM_ECDSA_SHA256.
        digest = hashlib.sha256(statement).digest()
        with self._token.calls():
            check_permitted(self._private, Attribute.SIGN, self._uri)
            return bytes(self._private.sign(digest, mechanism=Mechanism.ECDSA))

    def close(self) -> None:
        """Gives the key's share of the login back; collecting the object does the same."""
        self._token.close()

    def __repr__(self) -> str:
        return f"TokenDeviceKey(thumbprint={self.public.thumbprint!r})"

    def _check_pair(self) -> None:
        # Anybody who reaches the token can put a public key object beside a private one, without a PIN.
        ephemeral = generate_private_key(SECP256R1())
        expected = SecretBytes(ephemeral.exchange(ECDH(), self._public.key))
        if self._derive(_encode_peer(ephemeral.public_key())) != expected:
            hint = "remove the foreign public key object, or generate another key"
            raise DeviceKeyError(f"{self._uri.key_name} has a public key that is not its own", hint=hint)

    def _derive(self, point: bytes) -> SecretBytes:
        # A session object, readable for the moment until it is destroyed; it would go with the session at the latest.
        secret = self._private.derive_key(
            KeyType.GENERIC_SECRET,
            8 * COORDINATE_BYTES,
            capabilities=0,
            mechanism=Mechanism.ECDH1_DERIVE,
            mechanism_param=(KDF.NULL, None, point),
            template={Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True},
        )
        try:
            value = secret[Attribute.VALUE]
        finally:
            secret.destroy()
        # Some tokens drop leading zeros, as of an integer (SEC 1 section 2.3.5 keeps them).
        return SecretBytes(value.rjust(COORDINATE_BYTES, b"\0"))


def open_device_key(location: str, passphrase: PassphraseCallback | None) -> TokenDeviceKey:
    """Opens the device key that a PKCS#11 URI names.

    Args:
        location: What follows ``pkcs11:``.
        passphrase: Called for the PIN, unless the URI has a ``pin-source`` or the process is logged in already.

    Raises:
        DeviceKeyError: The URI does not do, or there is not exactly one such key, fit for ECDH and bound to its token.
        PassphraseError: The PIN is missing or wrong.
        KeyStoreLockedError: Too many wrong PINs were tried.
        KeyStoreMissingError: No such module or token.
        KeyStoreBusyError: The token has no session left.
    """
    uri = parse_key_uri(location)
    with logged_in(uri, passphrase) as token:
        return TokenDeviceKey(token, uri)


def generate_device_key(location: str, passphrase: PassphraseCallback | None) -> TokenDeviceKey:
    """Makes a device key on the token that a PKCS#11 URI names; never replaces one.

    Args:
        location: What follows ``pkcs11:``; its ``object`` and ``id`` name the new key.
        passphrase: As for `open_device_key`.

    Raises:
        OutputError: A key of that name or id exists already, or the token is write-protected.
        DeviceKeyError: As `open_device_key`, or the token cannot make such a key.
    """
    uri = parse_key_uri(location)
    with logged_in(uri, passphrase) as token:
        return generate_on_token(token, uri, _make, lambda: TokenDeviceKey(token, uri))


def _make(session: pkcs11.Session, key_id: bytes, label: str) -> Iterator[Any]:
    yield from generate_pair(session, KeyType.EC, P256_PARAMETERS, key_id, label, derive=True)


def _encode_peer(peer: EllipticCurvePublicKey) -> bytes:
    if not isinstance(peer.curve, SECP256R1):
        found = f"peer key is on curve {peer.curve.name}, expected P-256"
        raise DeviceKeyError(found, hint="ask the issuer for a license for this device")
    point = peer.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    try:
        # Not left to the token: answers for points off the curve would leak the private key (SP 800-56A section 5.6.2).
        EllipticCurvePublicKey.from_encoded_point(SECP256R1(), point)
    except ValueError:
        raise DeviceKeyError("peer key is not a point on P-256", hint="ask the issuer for a fresh license") from None
    return point
