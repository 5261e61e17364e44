"""One writer at a time for a device's state: a lock file beside it, held with flock(2).

The lock is not on the state itself, as every write puts another file in its place.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from keylatch.errors import DeviceStateError, OutputError
from keylatch.keys._files import PRIVATE_MODE

# A write takes milliseconds, with a TPM's counter a tenth of a second; whoever waits this long waits for a dead disk.
LOCK_TIMEOUT_SECONDS = 10.0

# Opened for reading, so that a state on a read-only disk can still be checked.
_LOCK_FLAGS = os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.001, 0.05


@contextlib.contextmanager
def lock_state(path: Path, *, exclusive: bool) -> Iterator[None]:
    """Holds the lock of the state at `path`: against everyone, or against writers only. It ends with the process.

    Each call has a descriptor of its own, so that threads of one process wait for each other too.

    Raises:
        DeviceStateError: Others held it for all of `LOCK_TIMEOUT_SECONDS`, or this file system has no locks.
        OutputError: The lock file cannot be made.
    """
    lock_path = path.with_name(path.name + ".lock")
    try:
        descriptor = os.open(lock_path, _LOCK_FLAGS, PRIVATE_MODE)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = error.strerror if isinstance(error, OSError) else "not a usable path"
        hint = "check that the directory exists and can be written"
        raise OutputError(f"lock of the device state, {lock_path}, cannot be made: {reason}", hint=hint) from None
    try:
        _wait(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH, lock_path)
        yield
    finally:
        os.close(descriptor)


def _wait(descriptor: int, operation: int, lock_path: Path) -> None:
    give_up, pause_seconds = time.monotonic() + LOCK_TIMEOUT_SECONDS, _FIRST_WAIT_SECONDS
    while not _try(descriptor, operation, lock_path):
        if time.monotonic() >= give_up:
            found = f"device state is held by another process for {LOCK_TIMEOUT_SECONDS:g} seconds, by {lock_path}"
            raise DeviceStateError(found, hint="find the process that holds it (fuser), and end it if it hangs")
        time.sleep(pause_seconds)
        pause_seconds = min(2 * pause_seconds, _LONGEST_WAIT_SECONDS)


def _try(descriptor: int, operation: int, lock_path: Path) -> bool:
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        found = f"lock of the device state, {lock_path}, does not work: {error.strerror}"
        raise DeviceStateError(found, hint="keep the device state on a local disk") from None
    return True
