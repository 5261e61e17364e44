"""A counter in a TPM's non-volatile memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from keylatch.errors import DeviceKeyError, KeyStoreMissingError, OutputError
from keylatch.keys._tpm._connection import CONTINUE_SESSION, ENCRYPT_RESPONSE, Connection, connected
from keylatch.keys._tpm._key_file import TpmKeyFile
from keylatch.keys._tpm._location import CounterLocation, parse_counter_location
from keylatch.keys._tpm._response_codes import (
    AUTH_REFUSED,
    HANDLE,
    NV_DEFINED,
    NV_SPACE,
    NV_UNINITIALIZED,
    TpmResponseError,
    reported,
)
from keylatch.keys._tpm._session import hmac_session
from keylatch.keys._tpm._storage_root import owner_authorization_set, storage_root
from keylatch.keys._tpm._structures import COUNTER_BYTES, counter_public, public_name


def open_counter(location: str) -> TpmCounter:
    """Opens a counter that `define_counter` made.

    Args:
        location: ``nv=0x01800100?tcti=…&key=PATH&backend=…``; see `parse_counter_location`.

    Raises:
        KeyStoreMissingError: No such counter, or no TPM there.
        DeviceKeyError: The index is no counter like ours, or was never incremented.
        KeyStoreBusyError: The TPM has no free slot.
        MissingExtraError: No library to reach it with.
    """
    counter = TpmCounter(parse_counter_location(location))
    counter.read()
    return counter


def define_counter(location: str) -> TpmCounter:
    """Makes a counter and increments it once, without which it has no value; never replaces one.

    Raises:
        OutputError: The index is in use.
        DeviceKeyError: The TPM's owner has set an authorization, or the TPM refuses.
        KeyStoreMissingError: No TPM there.
        KeyStoreBusyError: The TPM has no free slot.
        MissingExtraError: No library to reach it with.
    """
    counter = TpmCounter(parse_counter_location(location))
    counter.define()
    return counter


class TpmCounter:
    """A TPM's NV counter. A `MonotonicCounter`.

    It is made again with a value above every counter the TPM ever had, so deleting it sets nothing back (part 3,
    section 31.3). Anybody who reaches the TPM may increment it, its owner may delete it: both can deny, neither can
    turn back. What does turn it back is restoring a snapshot of a virtual TPM.

    Commands and answers carry the HMAC of a salted session. Without `key=` the TPM's word is taken for the key that
    the salt is encrypted to: that covers a bus that is listened to or disturbed, and not an interposer who poses as
    another TPM from the first byte on. With `key=`, the storage root key must be that of the key file, and he is
    covered too. Not covered: an answer that never comes.
    """

    __slots__ = ("_location", "_storage_root_name")

    def __init__(self, location: CounterLocation) -> None:
        self._location = location
        self._storage_root_name = None if location.key_path is None else TpmKeyFile.load(location.key_path).parent

    def read(self) -> int:
        """Returns the count.

        Raises:
            KeyStoreMissingError: The counter is gone, or the TPM does not answer.
            KeyStoreBusyError: The TPM has no free slot.
            DeviceKeyError: The index is another one by now, or the TPM refuses.
        """
        with self._session() as (tpm, session):
            return self._read(tpm, session, self._open(tpm))

    def increment(self) -> int:
        """Adds one and returns the count after it; more, if another process added to it at the same time.

        Raises:
            KeyStoreMissingError: The counter is gone, or the TPM does not answer.
            KeyStoreBusyError: No free slot, or too soon: TPMs bound how often they write, some to once in seconds.
            DeviceKeyError: The index is another one by now, or the TPM refuses.
        """
        with self._session() as (tpm, session):
            index = self._open(tpm)
            self._increment(tpm, session, index)
            return self._read(tpm, session, index)

    def define(self) -> None:
        """Defines the index and increments it once; see `define_counter`."""
        with self._session() as (tpm, session):
            self._increment(tpm, session, self._define(tpm, session))

    @contextlib.contextmanager
    def _session(self) -> Iterator[tuple[Connection, int]]:
        with (
            reported(self._what),
            connected(self._location.access) as tpm,
            storage_root(tpm, self._storage_root_name) as root,
            hmac_session(tpm, root) as session,
        ):
            yield tpm, session

    @property
    def _what(self) -> str:
        return f"TPM counter 0x{self._location.nv_index:08x}"

    def _open(self, tpm: Connection) -> int:
        try:
            index = tpm.open_handle(self._location.nv_index)
        except TpmResponseError as error:
            if error.kind != HANDLE:
                raise
            hint = "define it; if it was there before, somebody deleted it"
            raise KeyStoreMissingError(f"{self._what} does not exist", hint=hint) from None
        # The name goes into the HMAC of every command, so the TPM agrees that this is what it reads.
        if tpm.name(index) not in (public_name(self._public(written=written)) for written in (True, False)):
            hint = "choose another index"
            raise DeviceKeyError(f"{self._what} is an NV index of another kind, expected a counter", hint=hint)
        return index

    def _public(self, *, written: bool) -> bytes:
        return counter_public(self._location.nv_index, written=written)

    def _define(self, tpm: Connection, session: int) -> int:
        tpm.set_attributes(session, CONTINUE_SESSION)
        try:
            return tpm.define_nv(session, self._public(written=False))
        except TpmResponseError as error:
            if error.kind == NV_DEFINED:
                raise OutputError(f"{self._what} exists already", hint="open it, or choose another index") from None
            if error.kind == NV_SPACE:
                raise DeviceKeyError(f"the TPM has no room for {self._what}", hint="delete unused NV indices") from None
            raise owner_authorization_set() if error.kind in AUTH_REFUSED else error from None

    def _increment(self, tpm: Connection, session: int, index: int) -> None:
        tpm.set_attributes(session, CONTINUE_SESSION)
        tpm.increment_nv(index, session)

    def _read(self, tpm: Connection, session: int, index: int) -> int:
        tpm.set_attributes(session, CONTINUE_SESSION | ENCRYPT_RESPONSE)
        try:
            return int.from_bytes(tpm.read_nv(index, session, COUNTER_BYTES), "big")
        except TpmResponseError as error:
            if error.kind != NV_UNINITIALIZED:
                raise
            hint = "increment it once, or define it again"
            raise DeviceKeyError(f"{self._what} was defined but never incremented", hint=hint) from None

    def __repr__(self) -> str:
        return f"TpmCounter(nv_index=0x{self._location.nv_index:08x})"
