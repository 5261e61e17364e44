"""Weights that lie encrypted beside the model: AES-256-GCM in chunks, opened straight into the buffer that runs.

Chunk i of n is the ciphertext of the weights' bytes [i · size, (i + 1) · size), then the 16-byte tag. Its nonce is i,
12 bytes, big-endian: the key is fresh for each export, so no pair of key and nonce comes twice. Associated data is the
label, the model_id (the manifest's SHA-256), i in 8 bytes, and whether it is the last chunk: chunks that are exchanged,
repeated, left out, cut off or of another model are refused. Whoever has a license has the key, and could seal other
weights under it: against other licensees only the place where the file comes from protects.

Source: the STREAM construction of Hoang, Reyhanitabar, Rogaway and Vizár, "Online Authenticated-Encryption and its
Nonce-Reuse Misuse-Resistance", CRYPTO 2015, with the position in nonce and associated data.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keylatch.errors import IntegrityError
from keylatch.runtime._aligned_buffer import Buffer, aligned_buffer

CHUNK_BYTES = 2**20  # larger ones fall out of the cache between reading and decrypting
MAX_CHUNK_BYTES = 2**26
KEY_BYTES = 32
KEY_NAME = "sealed_weights.key"
_TAG_BYTES = 16
LABEL = b"keylatch/1 sealed weights"
_MAX_THREADS = 8


@dataclass(frozen=True, slots=True)
class SealedWeights:
    """What the manifest says of weights.sealed.

    Attributes:
        size_bytes: Of the file.
        chunk_bytes: Plaintext of each chunk but the last, which may be shorter.
    """

    size_bytes: int
    chunk_bytes: int

    @property
    def chunks(self) -> int:
        """How many there are."""
        return -(-self.size_bytes // (self.chunk_bytes + _TAG_BYTES))

    @property
    def plain_bytes(self) -> int:
        """Of the weights."""
        return self.size_bytes - _TAG_BYTES * self.chunks

    @classmethod
    def of(cls, plain_bytes: int, chunk_bytes: int = CHUNK_BYTES) -> SealedWeights:
        """What sealing so many bytes gives; no weights at all are one empty chunk."""
        return cls(plain_bytes + _TAG_BYTES * max(1, -(-plain_bytes // chunk_bytes)), chunk_bytes)


def seal_weights(
    source: Path | BinaryIO, target: Path, key: bytes, model_id: str, sealed: SealedWeights, *, label: bytes = LABEL
) -> None:
    """Encrypt a file of weights.

    Args:
        source: The plain weights, a file or a stream.
        target: The file to write.
        key: 32 fresh random bytes, never used for another file.
        model_id: Of the manifest that names `sealed`, hex.
        sealed: `SealedWeights.of` the source's size.
        label: What the file is, in the associated data.
    """
    cipher = AESGCM(key)
    with source.open("rb") if isinstance(source, Path) else source as plain, target.open("wb") as out:
        for index in range(sealed.chunks):
            piece = plain.read(sealed.chunk_bytes)
            out.write(cipher.encrypt(_nonce(index), piece, _associated(label, model_id, index, sealed.chunks)))


def unseal_weights(
    read: Callable[[memoryview, int], int], key: bytes, model_id: str, sealed: SealedWeights, *, label: bytes = LABEL
) -> Buffer:
    """Decrypt weights on a few threads, chunk by chunk, so that only one copy of them is ever in memory.

    Args:
        read: Reads into a buffer from an offset of the file, as `os.preadv` does; gives the bytes read.
        key: From the license.
        model_id: Of the model that the license is for.
        sealed: From its manifest.
        label: What the file is.

    Returns:
        (plain_bytes,) uint8.

    Raises:
        IntegrityError: If the file is not what was sealed under this key, for this model, whole and in order.
    """
    weights = aligned_buffer(sealed.plain_bytes)
    view, cipher = memoryview(weights.data), AESGCM(key)
    indices, taking = itertools.count(), threading.Lock()

    def work() -> None:
        chunk = memoryview(bytearray(sealed.chunk_bytes + _TAG_BYTES))
        while True:
            with taking:
                index = next(indices)
            if index >= sealed.chunks:
                return
            size = _read_fully(read, chunk, index * len(chunk))
            start = index * sealed.chunk_bytes
            plain = view[start : start + size - _TAG_BYTES]
            cipher.decrypt_into(_nonce(index), chunk[:size], _associated(label, model_id, index, sealed.chunks), plain)

    threads = min(_MAX_THREADS, sealed.chunks, os.cpu_count() or 1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            for future in [pool.submit(work) for _ in range(threads)]:
                future.result()
    except (InvalidTag, ValueError):  # a chunk cut short has no room for its tag
        raise IntegrityError from None
    return weights


def _read_fully(read: Callable[[memoryview, int], int], chunk: memoryview, offset: int) -> int:
    size = 0
    while size < len(chunk):
        count = read(chunk[size:], offset + size)
        if count == 0:
            break
        size += count
    return size


def _nonce(index: int) -> bytes:
    return index.to_bytes(12, "big")


def _associated(label: bytes, model_id: str, index: int, chunks: int) -> bytes:
    return label + bytes.fromhex(model_id) + index.to_bytes(8, "big") + bytes([index == chunks - 1])
