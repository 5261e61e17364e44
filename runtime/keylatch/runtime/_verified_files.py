"""Files of a locked model's directory: regular ones inside it, opened once, bounded, read whole, compared by digest."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from blake3 import blake3

from keylatch.errors import ArtifactError, DigestError
from keylatch.runtime._aligned_buffer import Buffer, aligned_buffer
from keylatch.runtime._manifest import FileDigest

HINT = "get the locked model again from its issuer"
_CHUNK_BYTES = 4 * 2**20
# O_NOFOLLOW: a link could lead out of the directory. O_NONBLOCK: a FIFO must not make us wait.
_READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


@contextmanager
def opened_directory(path: Path) -> Iterator[int]:
    """The descriptor of a model's directory.

    Raises:
        ArtifactError: If there is none.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = "is not a directory" if isinstance(error, NotADirectoryError) else "cannot be opened"
        missing = isinstance(error, FileNotFoundError)
        raise ArtifactError(
            f"locked model {path} {'does not exist' if missing else reason}",
            hint="name the model's directory, e.g. resnet50.latch",
        ) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def opened_file(folder: int, name: str, *, limit: int, expected: int | None) -> Iterator[tuple[int, int]]:
    """The descriptor and size of a regular file inside the directory.

    Args:
        folder: The directory's descriptor.
        name: The file's plain name.
        limit: The most bytes.
        expected: Its bytes, if they are known.

    Raises:
        ArtifactError: If it is missing, a link, no regular file, or too large.
        DigestError: If it has other than `expected` bytes.
    """
    try:
        descriptor = os.open(name, _READ_FLAGS, dir_fd=folder)
    except FileNotFoundError:
        raise ArtifactError(f"{name} is missing from the locked model", hint=HINT) from None
    except OSError as error:
        raise ArtifactError(f"{name} cannot be opened: {error.strerror}; links are not followed", hint=HINT) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ArtifactError(f"{name} is not a regular file", hint=HINT)
        if expected is not None and status.st_size != expected:
            raise DigestError(f"{name} has {status.st_size} bytes, expected {expected}", hint=HINT)
        if status.st_size > limit:
            raise ArtifactError(f"{name} has {status.st_size} bytes, expected at most {limit}", hint=HINT)
        yield descriptor, status.st_size
    finally:
        os.close(descriptor)


def read_file(folder: int, name: str, *, limit: int, expected: int | None = None) -> Buffer:
    """A whole file, (bytes,) uint8; arguments and errors are those of `opened_file`."""
    with opened_file(folder, name, limit=limit, expected=expected) as (descriptor, size):
        return read_descriptor(descriptor, name, size)


def read_descriptor(
    descriptor: int, name: str, size: int, arrived: Callable[[memoryview], object] = lambda _piece: None
) -> Buffer:
    """The first `size` bytes of an open file, (size,) uint8; `arrived` is given each piece as it comes.

    Raises:
        DigestError: If it became shorter.
    """
    buffer = aligned_buffer(size)
    view, position = memoryview(buffer.data), 0
    while position < size:
        count = os.preadv(descriptor, [view[position : position + _CHUNK_BYTES]], position)
        if count == 0:
            raise DigestError(f"{name} became shorter while it was read", hint="try again")
        arrived(view[position : position + count])
        position += count
    return buffer


def read_verified(folder: int, name: str, expected: FileDigest) -> Buffer:
    """A whole file whose digest is the manifest's, (bytes,) uint8.

    Raises:
        ArtifactError: As `opened_file`.
        DigestError: If it is another file.
    """
    buffer = read_file(folder, name, limit=expected.size_bytes, expected=expected.size_bytes)
    digest = new_digest(expected)
    digest.update(buffer.data)
    require_digest(name, digest, expected)
    return buffer


def new_digest(expected: FileDigest) -> Any:
    """A hash object, still empty, of the algorithm that the manifest names."""
    return blake3() if expected.algorithm == "blake3" else hashlib.sha256()


def require_digest(name: str, digest: Any, expected: FileDigest) -> None:
    """Compare a finished digest with the manifest's.

    Raises:
        DigestError: If they differ.
    """
    if not hmac.compare_digest(digest.hexdigest(), expected.hexdigest):
        raise DigestError(f"{name} is not the file of the manifest: its digest differs", hint=HINT)
