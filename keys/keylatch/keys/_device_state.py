"""What a device remembers: the rules of `_state_record`, applied to a file that several processes share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from keylatch.errors import FormatError
from keylatch.keys._claims import Claims
from keylatch.keys._counter import MonotonicCounter
from keylatch.keys._device_secret import AnyDeviceKey, derive_device_secret
from keylatch.keys._revocations import RevocationList
from keylatch.keys._secret_bytes import Uncopyable
from keylatch.keys._state_file import MAC_KEY_INFO, check_state_exists
from keylatch.keys._state_record import (
    CLOCK_LEEWAY_SECONDS,
    MAX_LEEWAY_SECONDS,
    StateRecord,
    is_worth_writing,
    judge,
    judge_list,
    raise_marks,
    set_time,
)
from keylatch.keys._state_store import StateStore
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

    __slots__ = ("_leeway_seconds", "_store", "_thumbprint")

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
        self._thumbprint, self._leeway_seconds = key.public.thumbprint, leeway_seconds
        self._store = StateStore(Path(path), self._thumbprint, derive_device_secret(key, MAC_KEY_INFO), counter)

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
        state._store.create(now)
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
        state._store.update(lambda _: None)
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
        return judge(self._store.read(), claims, revocations, now=now, leeway_seconds=self._leeway_seconds)

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

        def change(record: StateRecord) -> StateRecord | None:
            judge(record, claims, revocations, now=now, leeway_seconds=self._leeway_seconds)
            return _if_worth_writing(record, raise_marks(record, claims, revocations, now=now))

        self._store.update(change)

    def remember_list(self, revocations: RevocationList, *, now: int) -> None:
        """Remembers a list by itself: also one by which no license opened, as it revokes them all.

        Were it only remembered with a license, the list before it would let the revoked one in again.

        Raises:
            ClockSetBackError: The clock stands more than the leeway before what has passed.
            OlderRevocationListError: A newer list was seen.
            OutputError: The file cannot be written; what was remembered before stands.
            DeviceStateError: As for `check`.
        """

        def change(record: StateRecord) -> StateRecord | None:
            judge_list(record, revocations, now=now, leeway_seconds=self._leeway_seconds)
            return _if_worth_writing(record, raise_marks(record, None, revocations, now=now))

        self._store.update(change)

    def advance(self, now: int) -> None:
        """Raises the high-water mark while a model runs; writes once in `HIGH_WATER_STEP_SECONDS`.

        Raises:
            OutputError: The file cannot be written; what was remembered before stands.
            DeviceStateError: As for `check`.
        """
        self._store.update(lambda record: _if_worth_writing(record, raise_marks(record, None, None, now=now)))

    def time_request(self) -> TimeRequest:
        """Returns the request that a time token for this device answers, until the state is written again.

        Raises:
            DeviceStateError: As for `check`.
        """
        return self._request(self._store.read())

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

        def change(record: StateRecord) -> StateRecord:
            token = verify_time_token(data, trust, self._request(record))
            return set_time(record, token, now=now, leeway_seconds=self._leeway_seconds)

        # Written even if nothing changed: the new nonce is what makes the token worthless.
        self._store.update(change)

    def read(self) -> StateRecord:
        """Returns what is remembered, for showing.

        Raises:
            DeviceStateError: As for `check`.
        """
        return self._store.read()

    def __repr__(self) -> str:
        return f"DeviceState(thumbprint={self._thumbprint!r})"

    def _request(self, record: StateRecord) -> TimeRequest:
        return TimeRequest(self._thumbprint, record.nonce)


def _if_worth_writing(old: StateRecord, new: StateRecord) -> StateRecord | None:
    return new if is_worth_writing(old, new) else None
