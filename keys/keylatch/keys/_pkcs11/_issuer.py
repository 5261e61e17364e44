"""An issuer key on a token: Ed25519 for licenses, and an HMAC key beside it for vaults."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pkcs11
from cryptography.exceptions import InvalidSignature
from pkcs11 import Attribute, KeyType, Mechanism

from keylatch.errors import DeviceKeyError
from keylatch.keys._issuer_key import IssuerPublicKey
from keylatch.keys._passphrase import PassphraseCallback
from keylatch.keys._pkcs11._login import TokenSession, logged_in
from keylatch.keys._pkcs11._objects import (
    check_permitted,
    find_private_key,
    find_public_key,
    find_secret_key,
    generate_on_token,
    generate_pair,
    generate_secret,
)
from keylatch.keys._pkcs11._public_points import ED25519_PARAMETERS, parse_issuer_point
from keylatch.keys._pkcs11._uri import KeyUri, parse_key_uri
from keylatch.keys._secret_bytes import SecretBytes, Uncopyable

# Another label than a file key's HKDF has: the two make the vault key in different ways.
_VAULT_KEY_LABEL = b"keylatch/1 token issuer vault key"


class TokenIssuerKey(Uncopyable):
    """An issuer key on a PKCS#11 token, which makes the signatures: the private key never leaves it. An `IssuerKey`.

    Several threads may use one key. A process made by fork may not: it opens its own.
    """

    __slots__ = ("_private", "_public", "_secret", "_token", "_uri")

    def __init__(self, token: TokenSession, uri: KeyUri) -> None:
        self._token, self._uri = token, uri
        with token.calls() as session:
            self._private = find_private_key(session, uri, KeyType.EC_EDWARDS, Attribute.SIGN)
            self._secret = find_secret_key(session, self._private, uri)
            public = find_public_key(session, self._private, uri)
            self._public = parse_issuer_point(public[Attribute.EC_PARAMS], public[Attribute.EC_POINT], uri.key_name)

    @property
    def public(self) -> IssuerPublicKey:
        """The half to give away."""
        return self._public

    def sign(self, data: bytes) -> bytes:
        """Returns the Ed25519 signature of `data`, 64 bytes (RFC 8032).

        Raises:
            DeviceKeyError: The key was closed, the token failed, or its signature does not verify.
        """
        with self._token.calls():
            signature = bytes(self._private.sign(data, mechanism=Mechanism.EDDSA))
        # A faulty signature would give the key away (Ed25519 is deterministic), a foreign public key object would make
        # licenses that open nowhere. Verifying costs 0.1 ms.
        try:
            self._public.key.verify(signature, data)
        except InvalidSignature:
            hint = "generate another key, or remove the foreign public key object"
            raise DeviceKeyError(f"{self._uri.key_name} made a signature that does not verify", hint=hint) from None
        return signature

    def vault_key(self) -> SecretBytes:
        """Returns the 32-byte key that this issuer's vaults are sealed under.

        HMAC-SHA256, under a second key that never leaves the token either, of a label and the public key. Nothing
        could be derived from the signing key itself: PKCS#11 has no key derivation from Ed25519 keys, and a hash of a
        signature would lose every vault where a token hedges its signatures with randomness.

        Raises:
            DeviceKeyError: There is no such second key, the key was closed, or the token failed.
        """
        secret = self._secret
        if secret is None:
            hint = "seal the vault under a passphrase, or generate an issuer key here, which makes both"
            raise DeviceKeyError(f"{self._uri.key_name} has no HMAC key beside it to seal vaults with", hint=hint)
        with self._token.calls():
            check_permitted(secret, Attribute.SIGN, self._uri)
            message = _VAULT_KEY_LABEL + self._public.key.public_bytes_raw()
            return SecretBytes(secret.sign(message, mechanism=Mechanism.SHA256_HMAC))

    def close(self) -> None:
        """Gives the key's share of the login back; collecting the object does the same."""
        self._token.close()

    def __repr__(self) -> str:
        return f"TokenIssuerKey(thumbprint={self.public.thumbprint!r})"


def open_issuer_key(location: str, passphrase: PassphraseCallback | None) -> TokenIssuerKey:
    """Opens the issuer key that a PKCS#11 URI names.

    Args:
        location: What follows ``pkcs11:``.
        passphrase: Called for the PIN, unless the URI has a ``pin-source`` or the process is logged in already.

    Raises:
        DeviceKeyError: The URI does not do, or there is not exactly one such key, fit to sign and bound to its token.
        PassphraseError: The PIN is missing or wrong.
        KeyStoreLockedError: Too many wrong PINs were tried.
        KeyStoreMissingError: No such module or token.
        KeyStoreBusyError: The token has no session left.
    """
    uri = parse_key_uri(location)
    with logged_in(uri, passphrase) as token:
        return TokenIssuerKey(token, uri)


def generate_issuer_key(location: str, passphrase: PassphraseCallback | None) -> TokenIssuerKey:
    """Makes an issuer key on the token that a PKCS#11 URI names; never replaces one.

    Args:
        location: What follows ``pkcs11:``; its ``object`` and ``id`` name the new key.
        passphrase: As for `open_issuer_key`.

    Raises:
        OutputError: A key of that name or id exists already, or the token is write-protected.
        DeviceKeyError: As `open_issuer_key`, or the token has no Ed25519.
    """
    uri = parse_key_uri(location)
    with logged_in(uri, passphrase) as token:
        return generate_on_token(token, uri, _make, lambda: TokenIssuerKey(token, uri))


def _make(session: pkcs11.Session, key_id: bytes, label: str) -> Iterator[Any]:
    yield from generate_pair(session, KeyType.EC_EDWARDS, ED25519_PARAMETERS, key_id, label, derive=False)
    yield generate_secret(session, key_id, label)
