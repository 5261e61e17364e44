"""The weights, a model's one large file that nothing parses: at hand early, and hashed meanwhile on another thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from keylatch.runtime._aligned_buffer import Buffer
from keylatch.runtime._leased_map import forget_pages, map_leased
from keylatch.runtime._manifest import WEIGHTS_NAME, FileDigest
from keylatch.runtime._verified_files import new_digest, opened_file, read_descriptor, read_verified, require_digest

# Handing over between threads takes Python milliseconds: not for what is hashed in as many.
_SMALL_BYTES = 4 * 2**20
_PIECE_BYTES = 32 * 2**20  # between two of them hashing can be given up

_Feed = Callable[[memoryview], object]


@contextmanager
def loaded_weights(folder: int, expected: FileDigest) -> Iterator[tuple[Future[Buffer], Future[None] | None]]:
    """Map the weights, or read a copy where somebody could change them, and start hashing them.

    For 100 MB a copy takes 20 ms, BLAKE3 25 and SHA-256 60, as long as making the session: both start at once. Whoever
    leaves early does not wait for the rest.

    Args:
        folder: The model's directory.
        expected: What the manifest says of them.

    Yields:
        The weights, (bytes,) uint8, and what waits for their digest; None if it is compared already.

    Raises:
        ArtifactError, DigestError: As for `read_verified`.
    """
    size = expected.size_bytes
    if size <= _SMALL_BYTES:
        read = Future[Buffer]()
        read.set_result(read_verified(folder, WEIGHTS_NAME, expected))
        yield read, None
        return
    digest = new_digest(expected)
    with (
        opened_file(folder, WEIGHTS_NAME, limit=size, expected=size) as (descriptor, _),
        ThreadPoolExecutor(1) as loader,
        ThreadPoolExecutor(1) as hasher,
    ):

        def verify() -> None:
            weights.result()  # every piece is queued by now, and the one hashing thread takes them in order
            hasher.submit(require_digest, WEIGHTS_NAME, digest, expected).result()

        weights = loader.submit(_load, descriptor, size, lambda piece: hasher.submit(digest.update, piece))
        try:
            yield weights, loader.submit(verify)
        finally:
            hasher.shutdown(cancel_futures=True)
    if weights.exception() is None:
        forget_pages(weights.result())


def _load(descriptor: int, size: int, feed: _Feed) -> Buffer:
    mapped = map_leased(descriptor, size)
    if mapped is None:
        return read_descriptor(descriptor, WEIGHTS_NAME, size, feed)
    for start in range(0, size, _PIECE_BYTES):
        feed(mapped[start : start + _PIECE_BYTES].data)
    return mapped
