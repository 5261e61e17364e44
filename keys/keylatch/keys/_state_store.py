"""Reading and writing the state file among several processes, and holding it to a counter.

With a counter each write first puts the file there with the count that comes next, and then raises the counter:

    the file's count is the counter's            the newest file
    the file's count is the counter's plus one   a crash came between the two; the next writer completes it
    anything else                                an older file was put back

Without a counter a copy of the file that is put back is not noticed: the MAC says who wrote it, not when.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from keylatch.errors import DeviceStateError, StateRolledBackError
from keylatch.keys._counter import MonotonicCounter
from keylatch.keys._files import PRIVATE_MODE, write_file
from keylatch.keys._secret_bytes import SecretBytes, Uncopyable
from keylatch.keys._state_file import parse_state, read_state_file, serialize_state
from keylatch.keys._state_lock import lock_state
from keylatch.keys._state_record import StateRecord, new_nonce, new_record


class StateStore(Uncopyable):
    """One device's state on disk.

    Args:
        path: The file.
        device: Thumbprint of the device key.
        mac_key: The device's, derived with `MAC_KEY_INFO`.
        counter: Serves this state alone; None where there is none.
    """

    __slots__ = ("_counter", "_device", "_mac_key", "_path")

    def __init__(self, path: Path, device: str, mac_key: SecretBytes, counter: MonotonicCounter | None) -> None:
        self._path, self._device, self._mac_key, self._counter = path, device, mac_key, counter

    def create(self, now: int) -> None:
        """Writes the record of a device that has seen nothing yet; never replaces one.

        Raises:
            OutputError: The file exists or cannot be written.
            DeviceStateError: Others hold the lock for long.
        """
        with lock_state(self._path, exclusive=True):
            # Also here one count more: no two files ever have the same one.
            self._write(new_record(self._device, self._read_count(), now=now), overwrite=False)

    def read(self) -> StateRecord:
        """Returns the record; writes nothing.

        Raises:
            DeviceStateError: The file is gone, edited, put back, unsafe, or held for long; or there is a counter and
                should be none, or the reverse.
        """
        # A writer changes the file and the counter one after the other: nobody must look in between.
        with lock_state(self._path, exclusive=False):
            return self._read()[0]

    def update(self, change: Callable[[StateRecord], StateRecord | None]) -> None:
        """Writes what `change` makes of the record, with a new nonce, unless that is None.

        Completes first what a crash cut short.

        Raises:
            OutputError: The file cannot be written; the one before stands.
            DeviceStateError: As for `read`; or something else raises the counter.
        """
        with lock_state(self._path, exclusive=True):
            record, count = self._read()
            if count != record.counter:
                # Before this count is used again: else two files would have it, and the older could be put back.
                self._raise_counter(record)
            changed = change(record)
            if changed is not None:
                self._write(changed)

    def _read(self) -> tuple[StateRecord, int | None]:
        record, count = parse_state(read_state_file(self._path), self._mac_key, self._device), self._read_count()
        self._check_count(record.counter, count)
        return record, count

    def _check_count(self, counter: int | None, count: int | None) -> None:
        if counter is None and count is not None:
            found = f"device state {self._path} was made without a counter, and one was given"
            raise StateRolledBackError(found, hint="put back the file that was made with the counter")
        if counter is not None and count is None:
            found = f"device state {self._path} goes with a counter, and none was given"
            raise DeviceStateError(found, hint="name the counter that it was made with")
        if counter is not None and count is not None and counter not in (count, count + 1):
            found = f"device state {self._path} has count {counter}, and its counter stands at {count}"
            raise StateRolledBackError(found, hint="put the newest copy of the file back, or ask the issuer")

    def _write(self, record: StateRecord, *, overwrite: bool = True) -> None:
        count = None if record.counter is None else record.counter + 1
        written = replace(record, nonce=new_nonce(), counter=count)
        data = serialize_state(written, self._mac_key)
        write_file(self._path, data, what="device state", mode=PRIVATE_MODE, overwrite=overwrite)
        self._raise_counter(written)

    def _raise_counter(self, record: StateRecord) -> None:
        if self._counter is not None and (reached := self._counter.increment()) != record.counter:
            found = f"counter of device state {self._path} went to {reached}, expected {record.counter}"
            raise DeviceStateError(found, hint="give each device state a counter of its own")

    def _read_count(self) -> int | None:
        return None if self._counter is None else self._counter.read()
