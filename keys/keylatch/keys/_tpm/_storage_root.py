"""The storage root key: it wraps device keys, and tells one TPM from another.

Derived from a seed that never leaves the TPM, so the same template gives the same key until the TPM is cleared.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from keylatch.errors import DeviceKeyError, FormatError
from keylatch.keys._device_key import COORDINATE_BYTES
from keylatch.keys._tpm._connection import Connection, flushed
from keylatch.keys._tpm._response_codes import AUTH_REFUSED, HANDLE, TpmResponseError
from keylatch.keys._tpm._structures import public_name, sized, storage_root_template, take_sized

# TCG TPM v2.0 Provisioning Guidance, section 7.8: where an operating system keeps the SRK, if it keeps one.
PERSISTENT_HANDLE: Final = 0x81000001

# Template L-2 of the EK Credential Profile has zeros in the place of the point.
_TEMPLATE: Final = storage_root_template(2 * sized(bytes(COORDINATE_BYTES)))


@contextlib.contextmanager
def storage_root(tpm: Connection, expected: bytes | None) -> Iterator[int]:
    """Finds the storage root key, the kept one or a fresh one, which is flushed at the end.

    Args:
        tpm: A connection.
        expected: Its Name, from a key file; or None where there is none yet, and the TPM's word is taken.

    Raises:
        DeviceKeyError: The TPM has another one; or it wants an owner authorization to make one.
        TpmResponseError: Anything else that the TPM refuses.
    """
    kept = _kept(tpm)
    if kept is not None and _fits(tpm, kept, expected):
        yield kept
        return
    with flushed(tpm, _create(tpm)) as made:
        if not _fits(tpm, made, expected):
            hint = "use the machine it was made on; after a TPM clear, generate another key and enroll it"
            raise DeviceKeyError("the key file was made with another TPM, or before this one was cleared", hint=hint)
        yield made


def _kept(tpm: Connection) -> int | None:
    try:
        return tpm.open_handle(PERSISTENT_HANDLE)
    except TpmResponseError as error:
        if error.kind != HANDLE:
            raise
        return None


def _fits(tpm: Connection, handle: int, expected: bytes | None) -> bool:
    # The name is a digest of the public area that sessions are salted to, so comparing it pins that area: who sits on
    # the bus cannot put a key of his own in its place, read the salt, and with it the shared secret.
    if expected is not None:
        return tpm.name(handle) == expected
    public = tpm.read_public(handle)
    return tpm.name(handle) == public_name(public) and _is_storage_root(public)


def _is_storage_root(public: bytes) -> bool:
    unique_bytes = 2 * (2 + COORDINATE_BYTES)
    try:
        x, rest = take_sized(public[-unique_bytes:])
        y, _ = take_sized(rest)
    except FormatError:
        return False
    # Any attribute but those of the template, a signing key's say, and it is not the one that we mean.
    return public == storage_root_template(sized(x) + sized(y))


def _create(tpm: Connection) -> int:
    try:
        return tpm.create_primary(_TEMPLATE)
    except TpmResponseError as error:
        if error.kind not in AUTH_REFUSED:
            raise
        raise owner_authorization_set() from None


def owner_authorization_set() -> DeviceKeyError:
    """Returns the error for a TPM whose owner hierarchy has a password."""
    hint = "as its owner, keep an ECC P-256 storage root key at 0x81000001, or clear the password: tpm2_changeauth"
    return DeviceKeyError("the TPM's owner has set an authorization, and keys here use the empty one", hint=hint)
