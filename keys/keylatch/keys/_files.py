"""Bounded reading and atomic writing of small files; every check is made on the descriptor that is then read.

Checking a path and opening it afterwards leaves a moment in which another process can swap the file (CWE-367).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from keylatch.errors import DeviceKeyError, FormatError, KeylatchError, OutputError

PRIVATE_MODE = 0o600
PUBLIC_MODE = 0o644

# O_NONBLOCK: opening a FIFO that stands where the file should must not wait for a writer.
_READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


def read_private_file(path: Path, *, what: str, max_bytes: int) -> bytes:
    """Reads a file that holds a private key, if nobody else can read or replace it.

    Raises:
        DeviceKeyError: Missing, a link, not a regular file, another user's, open to others, or too large.
    """
    with _opened(path, what, DeviceKeyError, os.O_NOFOLLOW) as descriptor:
        status = os.fstat(descriptor)
        _check_regular(status, path, what, DeviceKeyError)
        _check_private(status, path, what)
        return _read_bounded(descriptor, path, what, max_bytes, DeviceKeyError)


def read_public_file(path: Path, *, what: str, max_bytes: int) -> bytes:
    """Reads a file whose secrecy does not matter or is not up to the file system; links are followed.

    Raises:
        FormatError: Missing, not a regular file, or larger than `max_bytes`.
    """
    with _opened(path, what, FormatError, 0) as descriptor:
        _check_regular(os.fstat(descriptor), path, what, FormatError)
        return _read_bounded(descriptor, path, what, max_bytes, FormatError)


def write_file(path: Path, data: bytes, *, what: str, mode: int, overwrite: bool = False) -> None:
    """Writes a file atomically: after a crash there is the old file, the new one, or none; never a part.

    Args:
        path: Where the file goes; its directory must exist.
        data: The whole content.
        what: Names the file in errors.
        mode: Permission bits at creation; there is no moment with wider ones.
        overwrite: Replace an existing file. Off by default: a key that is overwritten is gone.

    Raises:
        OutputError: The file exists (and `overwrite` is off), or it cannot be written.
    """
    temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}.tmp"
    try:
        try:
            _write_synced(temporary, data, mode)
            # link() refuses an existing name, which rename() would silently replace.
            (os.replace if overwrite else os.link)(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_directory(path.parent)
    except FileExistsError:
        hint = "choose another name, or move the existing file away first"
        raise OutputError(f"{what} {path} exists already", hint=hint) from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = error.strerror if isinstance(error, OSError) else "not a usable path"
        hint = "check that the directory exists and can be written"
        raise OutputError(f"{what} {path} cannot be written: {reason}", hint=hint) from None


@contextlib.contextmanager
def _opened(path: Path, what: str, error_type: type[KeylatchError], extra_flags: int) -> Iterator[int]:
    try:
        descriptor = os.open(path, _READ_FLAGS | extra_flags)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise _opening_error(path, what, error_type, error) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _opening_error(path: Path, what: str, error_type: type[KeylatchError], error: Exception) -> KeylatchError:
    if isinstance(error, FileNotFoundError):
        return error_type(f"{what} {path} does not exist", hint="check the path")
    if path.is_symlink():
        return error_type(f"{what} {path} is a link, expected a regular file", hint="name the file itself")
    reason = error.strerror if isinstance(error, OSError) else "not a usable path"
    return error_type(f"{what} {path} cannot be opened: {reason}", hint="check the path and its permissions")


def _check_regular(status: os.stat_result, path: Path, what: str, error_type: type[KeylatchError]) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise error_type(f"{what} {path} is {kind}, expected a regular file", hint="name the file itself")


def _check_private(status: os.stat_result, path: Path, what: str) -> None:
    if status.st_uid != os.geteuid():
        found = f"{what} {path} belongs to user {status.st_uid}, expected user {os.geteuid()}"
        raise DeviceKeyError(found, hint=f"chown {os.geteuid()} {path}")
    if status.st_mode & 0o077:
        found = f"{what} {path} is open to other users: mode {status.st_mode & 0o777:04o}, expected 0600"
        raise DeviceKeyError(found, hint=f"chmod 600 {path}")


def _read_bounded(descriptor: int, path: Path, what: str, max_bytes: int, error_type: type[KeylatchError]) -> bytes:
    size_bytes = os.fstat(descriptor).st_size
    if size_bytes > max_bytes:
        found = f"{what} {path} has {size_bytes} bytes, expected at most {max_bytes}"
        raise error_type(found, hint=f"check that it is the {what}")
    try:
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(size_bytes + 1)  # one more, to see the file grow
    except OSError as error:
        raise error_type(f"{what} {path} cannot be read: {error.strerror}", hint="check the disk") from None
    if len(data) != size_bytes:
        raise error_type(f"{what} {path} changed while it was read", hint="try again")
    return data


def _write_synced(path: Path, data: bytes, mode: int) -> None:
    with os.fdopen(os.open(path, _CREATE_FLAGS, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(directory: Path) -> None:
    # The new name is part of the directory, and survives a power cut only once that is on disk too.
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
