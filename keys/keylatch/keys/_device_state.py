"""What a device remembers: the class that keeps a `StateRecord` in a file, for several processes, against restoring.

With a counter each write first puts the file there with the count that comes next, and then raises the counter:

    the file's count is the counter's            the newest file
    the file's count is the counter's plus one   a crash came between the two; the next writer completes it
    anything else                                an older file was put back

Without a counter a copy of the file that is put back is not noticed: the MAC says who wrote it, not when.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Self

from keylatch.errors import DeviceStateError, FormatError, StateRolledBackError
from keylatch.keys._claims import Claims
from keylatch.keys._counter import MonotonicCounter
from keylatch.keys._device_secret import AnyDeviceKey, derive_device_secret
from keylatch.keys._files import PRIVATE_MODE, write_file
from keylatch.keys._revocations import RevocationList
from keylatch.keys._secret_bytes import Uncopyable
from keylatch.keys._state_file import (
    MAC_KEY_INFO,
    check_state_exists,
    parse_state,
    read_state_file,
    serialize_state,
)
from keylatch.keys._state_lock import lock_state
from keylatch.keys._state_record import (
    CLOCK_LEEWAY_SECONDS,
    MAX_LEEWAY_SECONDS,
    StateRecord,
    is_worth_writing,
    judge,
    judge_list,
    new_nonce,
    new_record,
    raise_marks,
    set_time,
)
from keylatch.keys._time_token import TimeRequest, verify_time_token
from keylatch.keys._trust import Trust


class DeviceState(Uncopyable):
    """What one device remembers of one issuer: the time, the newest revocation list, the newest license of each model.

    Threads and processes may share the file. It refuses what it can tell: a clock set back, an older license or list,
    an edited file; with a counter also a file put back from an earlier copy. It cannot tell a device whose memory was
    deleted from a new one, which is why nothing but `create` makes a state: whoever may run `create` can make the
    device forget.

    Made by `create` and `open` only.
    """

    __slots__ = ("_counter", "_leeway_seconds", "_mac_key", "_path", "_thumbprint")

    def __init__(
        self,
        path: str | os.PathLike[str],
        key: AnyDeviceKey,
        counter: MonotonicCounter | None,
        leeway_seconds: int,
    ) -> None:
        if type(leeway_seconds) is not int or not 0 <= leeway_seconds <= MAX_LEEWAY_SECONDS:
            found = f"clock leeway is {leeway_seconds!a:.40}, expected 0 to {MAX_LEEWAY_SECONDS} whole seconds"
            raise FormatError(found, hint=f"leave it at {CLOCK_LEEWAY_SECONDS}")
        self._path, self._counter, self._leeway_seconds = Path(path), counter, leeway_seconds
        self._thumbprint = key.public.thumbprint
        self._mac_key = derive_device_secret(key, MAC_KEY_INFO)

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        key: AnyDeviceKey,
        counter: MonotonicCounter | None = None,
        *,
        now: int,
        leeway_seconds: int = CLOCK_LEEWAY_SECONDS,
    ) -> Self:
        """Makes the state of a device that has seen nothing yet; never replaces one.

        Args:
            path: Where the file goes, with mode 0600; its lock file goes beside it.
            key: The device key.
            counter: A counter that serves this state alone; it is needed with every `open` from then on.
            now: Seconds since the epoch.
            leeway_seconds: How far the clock may stand before what has passed, 0 to `MAX_LEEWAY_SECONDS`.

        Raises:
            OutputError: The file exists or cannot be written.
            DeviceKeyError: The key or the counter cannot be used.
            FormatError: `leeway_seconds` is out of range.
        """
        state = cls(path, key, counter, leeway_seconds)
        with lock_state(state._path, exclusive=True):
            # Also here one count more: no two files ever have the same one.
            state._write(new_record(state._thumbprint, state._read_count(), now=now), overwrite=False)
        return state

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        key: AnyDeviceKey,
        counter: MonotonicCounter | None = None,
        *,
        leeway_seconds: int = CLOCK_LEEWAY_SECONDS,
    ) -> Self:
        """Opens the state that `create` made for this device; completes a write that a crash cut short.

        Raises:
            StateMissingError: The file is gone.
            StateEditedError: This device did not write what stands there.
            StateRolledBackError: With a counter: the file is not the newest one.
            DeviceStateError: It was made with a counter and none is given; it is unsafe; or others hold it for long.
            DeviceKeyError: The key or the counter cannot be used.
            FormatError: `leeway_seconds` is out of range.
        """
        check_state_exists(Path(path))  # before a lock file is made beside nothing
        state = cls(path, key, counter, leeway_seconds)
        with lock_state(state._path, exclusive=True):
            state._read(complete=True)
        return state

    def check(self, claims: Claims, revocations: RevocationList | None, *, now: int) -> int:
        """Judges a license and a list by what this device remembers; writes nothing. Step 5 of opening.

        Args:
            claims: Verified claims.
            revocations: A verified list, or None.
            now: This machine's clock, seconds since the epoch.

        Returns:
            The moment that counts as now, at which the caller judges `expires_at` and the list's age.

        Raises:
            ClockSetBackError: The clock stands more than the leeway before what has passed.
            OlderRevocationListError: A newer list was seen.
            OlderLicenseError: A newer license was seen for this model.
            DeviceStateError: The file is gone, edited, put back, unsafe, held for long, or has no room for the model.
        """
        with lock_state(self._path, exclusive=False):
            record = self._read()
        return judge(record, claims, revocations, now=now, leeway_seconds=self._leeway_seconds)

    def remember(self, claims: Claims, revocations: RevocationList | None, *, now: int) -> None:
        """Remembers a license that has really opened, before it gives its first answer.

        Checks it once more, as another process may have seen a newer one meanwhile. Writes if a signed fact is new or
        `HIGH_WATER_STEP_SECONDS` have passed.

        Args:
            claims: Verified claims.
            revocations: The verified list that it was opened with, or None.
            now: Seconds since the epoch: this machine's clock at this moment, or what `check` returned.

        Raises:
            OutputError: The file cannot be written; what was remembered before stands.
            KeylatchError: As for `check`.
        """

        def change(record: StateRecord) -> StateRecord:
            judge(record, claims, revocations, now=now, leeway_seconds=self._leeway_seconds)
            return raise_marks(record, claims, revocations, now=now)

        self._update(change)

    def remember_list(self, revocations: RevocationList, *, now: int) -> None:
        """Remembers a list by itself: also one by which no license opened, as it revokes them all.

        Were it only remembered with a license, the list before it would let the revoked one in again.

        Raises:
            ClockSetBackError: The clock stands more than the leeway before what has passed.
            OlderRevocationListError: A newer list was seen.
            OutputError: The file cannot be written; what was remembered before stands.
            DeviceStateError: As for `check`.
        """

        def change(record: StateRecord) -> StateRecord:
            judge_list(record, revocations, now=now, leeway_seconds=self._leeway_seconds)
            return raise_marks(record, None, revocations, now=now)

        self._update(change)

    def advance(self, now: int) -> None:
        """Raises the high-water mark while a model runs; writes once in `HIGH_WATER_STEP_SECONDS`.

        Raises:
            OutputError: The file cannot be written; what was remembered before stands.
            DeviceStateError: As for `check`.
        """
        self._update(lambda record: raise_marks(record, None, None, now=now))

    def time_request(self) -> TimeRequest:
        """Returns the request that a time token for this device answers, until the state is written again.

        Raises:
            DeviceStateError: As for `check`.
        """
        with lock_state(self._path, exclusive=False):
            return self._request(self._read())

    def apply_time_token(self, data: bytes, trust: Trust, *, now: int) -> None:
        """Sets the high-water mark by a time token: the way back after a clock that ran ahead was set right.

        Stop the sessions that run by the wrong clock first: they know no other, and would raise the mark again.

        Args:
            data: From `sign_time_token`.
            trust: Pinned keys.
            now: This machine's clock, set right, seconds since the epoch.

        Raises:
            SignatureError, FormatError, LicenseRequiredError: As for `verify_time_token`.
            ClockError: The token is for another device or an earlier request, or the clock does not agree with it.
            OutputError: The file cannot be written; what was remembered before stands.
            DeviceStateError: As for `check`.
        """
        with lock_state(self._path, exclusive=True):
            record = self._read(complete=True)
            token = verify_time_token(data, trust, self._request(record))
            changed = set_time(record, token, now=now, leeway_seconds=self._leeway_seconds)
            # Written even if nothing changed: the new nonce is what makes the token worthless.
            self._write(changed)

    def __repr__(self) -> str:
        return f"DeviceState(thumbprint={self._thumbprint!r})"

    def _update(self, change: Callable[[StateRecord], StateRecord]) -> None:
        with lock_state(self._path, exclusive=True):
            record = self._read(complete=True)
            changed = change(record)
            if is_worth_writing(record, changed):
                self._write(changed)

    def _read(self, *, complete: bool = False) -> StateRecord:
        """Reads the file and holds it to the counter; under a lock, as a writer changes one after the other."""
        record = parse_state(read_state_file(self._path), self._mac_key, self._thumbprint)
        count = self._read_count()
        if record.counter is not None and count is None:
            found = f"device state {self._path} goes with a counter, and none was given"
            raise DeviceStateError(found, hint="name the counter that it was made with")
        if record.counter is None and count is not None:
            found = f"device state {self._path} was made without a counter, and one was given"
            raise StateRolledBackError(found, hint="put back the file that was made with the counter")
        if record.counter is not None and count is not None and record.counter not in (count, count + 1):
            found = f"device state {self._path} has count {record.counter}, and its counter stands at {count}"
            raise StateRolledBackError(found, hint="put the newest copy of the file back, or ask the issuer")
        if complete and count != record.counter:
            # Before this count is used again: else two files would have it, and the older could be put back.
            self._raise_counter(record)
        return record

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

    def _request(self, record: StateRecord) -> TimeRequest:
        return TimeRequest(self._thumbprint, record.nonce)
