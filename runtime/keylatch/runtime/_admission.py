"""Whether a session may answer, and until when: the license in force, the time, the revocation list.

An open session comes here when its last admission has run out, about once a minute, and never in between.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from keylatch.errors import KeylatchError, OlderLicenseError, OlderRevocationListError
from keylatch.keys import Claims, RevocationList, RunningClock, boot_seconds, check_revocations, check_validity
from keylatch.runtime._credentials import Credentials, LicenseSource, RevocationsSource
from keylatch.runtime._followed_file import Followed, FollowedFile, FollowedKind
from keylatch.runtime._manifest import GateTensor
from keylatch.runtime._opening import Array, Opened, open_license, remember, remember_list, wipe

# The license, the list and the wall clock are looked at this often while running, in seconds.
RECHECK_SECONDS = 60.0
NEVER = float("inf")

_LOG = logging.getLogger("keylatch.runtime")

AnswerCheck = Callable[[dict[str, Array]], None]
"""Runs the model on the known answer's input and compares; raises `IntegrityError`."""


class Unlimited:
    """The admission of a session that runs locked: nothing ends it."""

    until = NEVER


class Admission:
    """The license that a session runs under; renewed in place, so that no request is dropped.

    Attributes:
        until: The session may answer without asking until then, on CLOCK_BOOTTIME, seconds. Written under the lock
            alone: written by who asked, it could come after a revocation and undo it.

    Args:
        credentials: What the session was opened with.
        opened: The license that opened it.
        model_id: The model's identity.
        gate: What a license for the model brings.
        check_answer: Proves that the session is unlocked.
        followed: Files to take renewed licenses and revocation lists from as they change, by what they hold.
    """

    def __init__(
        self,
        credentials: Credentials,
        opened: Opened,
        model_id: str,
        gate: Sequence[GateTensor],
        check_answer: AnswerCheck,
        followed: Followed,
    ) -> None:
        self._credentials, self._claims = credentials.without_key(), opened.claims
        self._model_id, self._gate, self._check_answer = model_id, gate, check_answer
        # The known-answer check waits for the first run: one inference is half of opening.
        self._unchecked_answer: dict[str, Array] | None = opened.known_answer
        self._clock = RunningClock(opened.moment)
        self._lock = threading.RLock()  # a followed file renews inside of a check
        self._followed = followed
        self.until = 0.0  # in the past: the first run comes to `readmit`

    @property
    def claims(self) -> Claims:
        """What the license in force says."""
        return self._claims

    def readmit(self) -> None:
        """Takes what its followed files bring, checks everything that time can change, and the known answer once.

        Raises:
            LicenseError: The license ended or was revoked, or its revocation list is too old.
            ClockError: The time is not known well enough.
            DeviceStateError: What the device remembers cannot be believed.
            IntegrityError: The model is not unlocked.
        """
        with self._lock:
            if boot_seconds() < self.until:
                return  # another thread was here, while this one waited for it
            self._follow()
            self._admit()

    def renew(self, license: LicenseSource | None, revocations: RevocationsSource | None) -> None:
        """Puts another license, another revocation list, or both in force.

        A license that is refused changes nothing. A list that the issuer signed and that is not older holds from then
        on, also against the license in force; `readmit` says so.

        Raises:
            OlderLicenseError: The license is older than the one in force.
            OlderRevocationListError: The list is older than the one in force.
            KeylatchError: As for opening.
        """
        with self._lock:
            self._let_others_go_on()
            try:
                self._put_in_force(license, revocations)
            finally:
                self.until = 0.0  # a list may have ended what the last admission allowed

    def _admit(self) -> None:
        try:
            now = self._clock.now()
            check_validity(self._claims, now=now)
            check_revocations(self._claims, self._credentials.revocations, now=now)
            if self._credentials.state is not None:
                self._credentials.state.advance(now)
            if self._unchecked_answer is not None:
                self._check_answer(self._unchecked_answer)
                self._unchecked_answer = None
        except BaseException:
            self.until = 0.0
            raise
        # `now` is a whole second, up to one behind the clock: in the last one every run comes here.
        self.until = boot_seconds() + min(RECHECK_SECONDS, self._claims.expires_at - 1 - now)

    def _let_others_go_on(self) -> None:
        # Taking a license costs its opening and one inference, and seconds where a key store does not answer. Others
        # need not wait for it while what is in force holds.
        if self._unchecked_answer is None:
            with contextlib.suppress(KeylatchError):
                self._admit()

    def _put_in_force(self, license: LicenseSource | None, revocations: RevocationsSource | None) -> None:
        given = self._credentials.with_license(license, revocations)
        now = self._clock.now()
        if given.revocations is not None and revocations is not None:
            self._check_list_not_older(given.revocations)
            # The list alone: whatever this device knows of a newer license, the one in force is held to it.
            remember_list(given.state, given.revocations, now=now)
            self._credentials = replace(self._credentials, revocations=given.revocations)
        if license is not None:
            opened = self._prove(given, now)
            remember(given, opened.claims, moment=opened.moment)
            self._credentials, self._claims = given.without_key(), opened.claims

    def _prove(self, credentials: Credentials, now: int) -> Opened:
        opened = open_license(credentials, self._model_id, self._gate, now=now)
        wipe(opened.values)  # those in the session stay: that they are the new license's too is proved, not assumed
        self._check_license_not_older(opened.claims)
        self._check_answer(opened.known_answer)
        self._unchecked_answer = None
        return opened

    def _check_license_not_older(self, claims: Claims) -> None:
        if claims.seq < self._claims.seq:
            found = f"license has seq {claims.seq}, older than the one in force, {self._claims.seq}"
            raise OlderLicenseError(found, hint="give the newest license that the issuer sent")

    def _check_list_not_older(self, given: RevocationList) -> None:
        present = self._credentials.revocations
        if present is not None and given.seq < present.seq:
            found = f"revocation list has seq {given.seq}, older than the one in force, {present.seq}"
            raise OlderRevocationListError(found, hint="give the newest list that the issuer published")

    def _follow(self) -> None:
        # The list first: the license is judged by it.
        kinds: tuple[FollowedKind, ...] = ("revocations", "license")
        for kind in kinds:
            followed = self._followed.get(kind)
            if followed is not None and followed.is_due(boot_seconds()):
                self._take(followed, kind)

    def _take(self, followed: FollowedFile, kind: FollowedKind) -> None:
        try:
            self.renew(*((followed.path, None) if kind == "license" else (None, followed.path)))
        except KeylatchError as error:
            # A bad file must not end a session that has a good license: it goes on until that one ends.
            if followed.refuse(error, boot_seconds()):
                _LOG.warning("%s was not taken, what is in force stays: %s", followed.path, error.message)
