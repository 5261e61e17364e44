"""Keys named by URI: one table from schemes to the places that keep keys, each loaded when it is first named."""

from __future__ import annotations

import importlib
import os
import re
from typing import Protocol, cast

from keylatch.errors import DeviceKeyError, MissingExtraError
from keylatch.keys._counter import MonotonicCounter
from keylatch.keys._device_key import DeviceKey, ProvingDeviceKey
from keylatch.keys._device_secret import AnyDeviceKey
from keylatch.keys._file_device_key import FileDeviceKey, file_location
from keylatch.keys._file_issuer_key import FileIssuerKey
from keylatch.keys._hybrid_key import HybridDeviceKey
from keylatch.keys._issuer_key import IssuerKey
from keylatch.keys._passphrase import PassphraseCallback

# RFC 3986 section 3.1, from two characters on.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(.*)", re.DOTALL)

# Scheme to the module that keeps such keys, and the extra that brings what the module needs.
_STORES = {
    "awskms": ("keylatch.keys._kms", "kms"),
    "pkcs11": ("keylatch.keys._pkcs11", "pkcs11"),
    "tpm": ("keylatch.keys._tpm", "tpm"),
}


class _DeviceKeyStore(Protocol):
    """What a module in `_STORES` offers; `location` is the URI after its scheme."""

    def open_device_key(self, location: str, passphrase: PassphraseCallback | None) -> DeviceKey: ...

    def generate_device_key(self, location: str, passphrase: PassphraseCallback | None) -> ProvingDeviceKey: ...


class _IssuerKeyStore(Protocol):
    def open_issuer_key(self, location: str, passphrase: PassphraseCallback | None) -> IssuerKey: ...

    def generate_issuer_key(self, location: str, passphrase: PassphraseCallback | None) -> IssuerKey: ...


class _CounterStore(Protocol):
    def open_counter(self, location: str) -> MonotonicCounter: ...

    def define_counter(self, location: str) -> MonotonicCounter: ...


def open_device_key(uri: str | os.PathLike[str], *, passphrase: PassphraseCallback | None = None) -> AnyDeviceKey:
    """Opens a device key named by a URI.

    Args:
        uri: ``file:device.key``, ``file:/etc/keylatch/device.key`` or a plain path; ``hybrid:device.key``;
            ``tpm:device.tpm``;
            ``pkcs11:token=…;object=…?module-path=…`` (RFC 7512); ``awskms:device.kms``; or ``env:NAME`` for the URI
            in an environment variable.
        passphrase: Called for a passphrase or PIN if the key needs one.

    Raises:
        DeviceKeyError: An unknown scheme, or the key cannot be opened.
        PassphraseError: The passphrase or PIN is missing or wrong.
        MissingExtraError: The scheme needs an extra that is not installed.
    """
    scheme, location = split_key_uri(uri)
    if scheme == "file":
        return FileDeviceKey.load(file_location(location), passphrase)
    if scheme == "hybrid":
        return HybridDeviceKey.load(file_location(location), passphrase)
    return cast(_DeviceKeyStore, _load_store(scheme)).open_device_key(location, passphrase)


def generate_device_key(
    uri: str | os.PathLike[str], *, passphrase: PassphraseCallback | None = None
) -> ProvingDeviceKey | HybridDeviceKey:
    """Makes a device key at a URI, in the forms that `open_device_key` takes; never replaces one.

    Args:
        uri: Where the key goes.
        passphrase: For a file: encrypts it, if given. For a TPM or HSM: called for the PIN.

    Raises:
        OutputError: Something stands there already, or it cannot be written.
        DeviceKeyError: An unknown scheme, or no key can be made there.
        PassphraseError: The passphrase or PIN is missing or wrong.
        MissingExtraError: The scheme needs an extra that is not installed.
    """
    scheme, location = split_key_uri(uri)
    if scheme == "file":
        return FileDeviceKey.generate(file_location(location), passphrase)
    if scheme == "hybrid":
        return HybridDeviceKey.generate(file_location(location), passphrase)
    return cast(_DeviceKeyStore, _load_store(scheme)).generate_device_key(location, passphrase)


def open_issuer_key(uri: str | os.PathLike[str], *, passphrase: PassphraseCallback | None = None) -> IssuerKey:
    """Opens an issuer key: ``file:issuer.key``, a plain path, or ``pkcs11:…`` (RFC 7512).

    Raises:
        DeviceKeyError: An unknown scheme, or the key cannot be opened.
        PassphraseError: The passphrase or PIN is missing or wrong.
        MissingExtraError: The scheme needs an extra that is not installed.
    """
    scheme, location = split_key_uri(uri)
    if scheme == "file":
        return FileIssuerKey.load(file_location(location), passphrase)
    return _issuer_store(scheme).open_issuer_key(location, passphrase)


def generate_issuer_key(uri: str | os.PathLike[str], *, passphrase: PassphraseCallback | None = None) -> IssuerKey:
    """Makes an issuer key at a URI, in the forms that `open_issuer_key` takes; never replaces one.

    Raises:
        OutputError: Something stands there already, or it cannot be written.
        DeviceKeyError: An unknown scheme, or no key can be made there.
        PassphraseError: The passphrase or PIN is missing or wrong.
        MissingExtraError: The scheme needs an extra that is not installed.
    """
    scheme, location = split_key_uri(uri)
    if scheme == "file":
        key = FileIssuerKey.generate()
        key.save(file_location(location), passphrase)
        return key
    return _issuer_store(scheme).generate_issuer_key(location, passphrase)


def open_counter(uri: str) -> MonotonicCounter:
    """Opens a counter that cannot be turned back: ``tpm:nv=0x01800100``.

    Raises:
        DeviceKeyError: An unknown scheme, or there is no such counter.
        MissingExtraError: The scheme needs an extra that is not installed.
    """
    return _counter_store(uri).open_counter(split_key_uri(uri)[1])


def define_counter(uri: str) -> MonotonicCounter:
    """Makes a counter at a URI that `open_counter` takes; never replaces one.

    Raises:
        OutputError: There is one already.
        DeviceKeyError: An unknown scheme, or none can be made there.
        MissingExtraError: The scheme needs an extra that is not installed.
    """
    return _counter_store(uri).define_counter(split_key_uri(uri)[1])


def split_key_uri(uri: str | os.PathLike[str]) -> tuple[str, str]:
    """Returns a key URI's scheme in lower case and the rest; a plain path has scheme ``file``.

    ``env:NAME`` is replaced by the URI in that variable, which names a key and is none.

    Raises:
        DeviceKeyError: The variable is not set, or names another variable.
    """
    match = _SCHEME.fullmatch(os.fspath(uri))
    if match is None:
        return "file", os.fspath(uri)
    scheme, location = match[1].lower(), match[2]
    if scheme != "env":
        return scheme, location
    named = _read_variable(location)
    if not named or named.lower().startswith("env:"):
        found = f"environment variable {location!a:.40} names no key"
        raise DeviceKeyError(found, hint=f"set {location} to a key URI such as file:device.key")
    return split_key_uri(named)


def _read_variable(name: str) -> str:
    try:
        return os.environ.get(name, "")
    except UnicodeEncodeError:  # half a surrogate pair: no variable has such a name
        return ""


def _load_store(scheme: str) -> object:
    if scheme not in _STORES:
        supported = ", ".join(f"{name}:" for name in sorted({*_STORES, "file", "hybrid", "env"}))
        found = f"keys named {scheme}: are not supported, only {supported}"
        raise DeviceKeyError(found, hint=f"for a file of that name, write file:{scheme}:…")
    module, extra = _STORES[scheme]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"a {scheme}: key", str(error.name), extra) from None


def _counter_store(uri: str) -> _CounterStore:
    scheme = split_key_uri(uri)[0]
    if scheme != "tpm":
        raise DeviceKeyError(f"counters cannot live at {scheme}:, only at tpm:", hint="give tpm:nv=0x01800100")
    return cast(_CounterStore, _load_store(scheme))


def _issuer_store(scheme: str) -> _IssuerKeyStore:
    if scheme in _STORES and scheme != "pkcs11":
        found = f"issuer keys cannot live at {scheme}:, only at file: and pkcs11:"
        raise DeviceKeyError(found, hint="give file:issuer.key or a pkcs11: URI")
    return cast(_IssuerKeyStore, _load_store(scheme))
