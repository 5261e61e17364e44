"""A file that is looked at now and then: has it been replaced since, or is it worth another try?"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Literal, TypeAlias

from keylatch.errors import (
    ClockError,
    DeviceStateError,
    InputError,
    KeylatchError,
    KeyStoreBusyError,
    KeyStoreMissingError,
    LicenseNotYetValidError,
    OutputError,
    RevocationListRequiredError,
    StaleRevocationListError,
)

# What time or another file settles, and is found out before a key is used: tried again at every look.
_SETTLES_ITSELF = (LicenseNotYetValidError, RevocationListRequiredError, StaleRevocationListError)
# What may pass, and may cost seconds to find out: tried again this much later. Not a PIN: wrong ones lock a token.
_MAY_PASS = (ClockError, DeviceStateError, KeyStoreBusyError, KeyStoreMissingError, OutputError)
RETRY_SECONDS = 60.0

_Mark: TypeAlias = tuple[int, int, int, int]


class FollowedFile:
    """Tells each replacement of a file once, and again while what was refused in it may pass.

    Args:
        path: The file; it may be missing for a while.
    """

    __slots__ = ("_mark", "_refusal", "_retry_at", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mark = self._look()
        self._retry_at: float | None = None
        self._refusal: type[KeylatchError] | None = None

    def is_due(self, now: float) -> bool:
        """Whether the file is there, and is not the one that was seen last or is to be tried again.

        Args:
            now: On CLOCK_BOOTTIME, seconds.
        """
        mark = self._look()
        if mark is None:
            return False
        if mark != self._mark:
            self._mark, self._retry_at, self._refusal = mark, None, None
            return True
        if self._retry_at is None or now < self._retry_at:
            return False
        self._retry_at = None
        return True

    def refuse(self, error: KeylatchError, now: float) -> bool:
        """Notes why the file was not taken, and when to try again; returns whether that is news.

        Args:
            error: Why.
            now: As for `is_due`.
        """
        if isinstance(error, _SETTLES_ITSELF):
            self._retry_at = now
        elif isinstance(error, _MAY_PASS):
            self._retry_at = now + RETRY_SECONDS
        news = type(error) is not self._refusal
        self._refusal = type(error)
        return news

    def _look(self) -> _Mark | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


FollowedKind: TypeAlias = Literal["license", "revocations"]
Followed: TypeAlias = dict[FollowedKind, FollowedFile]
"""Files to take renewed licenses and revocation lists from, by what they hold."""


def follow(*, license: object, revocations: object) -> Followed:
    """Returns the files among what a session was given.

    Raises:
        InputError: Neither is a path, so there is nothing to watch.
    """
    followed: Followed = {}
    if isinstance(license, (str, PathLike)):
        followed["license"] = FollowedFile(Path(license))
    if isinstance(revocations, (str, PathLike)):
        followed["revocations"] = FollowedFile(Path(revocations))
    if not followed:
        found = "watch=True, but neither the license nor the revocation list was given as a path"
        raise InputError(found, hint="give license= as a path, or call session.renew")
    return followed
