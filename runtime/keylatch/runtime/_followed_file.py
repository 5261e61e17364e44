"""A file that is looked at now and then: has it been replaced since?"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Literal, TypeAlias

from keylatch.errors import InputError

_Mark: TypeAlias = tuple[int, int, int, int]


class FollowedFile:
    """Tells each replacement of a file once.

    Args:
        path: The file; it may be missing for a while.
    """

    __slots__ = ("_mark", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mark = self._look()

    def changed(self) -> bool:
        """Whether the file is there and is not the one that was seen last."""
        mark = self._look()
        if mark is None or mark == self._mark:
            return False
        self._mark = mark
        return True

    def _look(self) -> _Mark | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


Followed: TypeAlias = dict[Literal["license", "revocations"], FollowedFile]
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
