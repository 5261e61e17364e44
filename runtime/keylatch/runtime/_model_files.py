"""Read a locked model's files: each once, bounded, from inside its directory; what was hashed is what is used."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from keylatch.errors import ArtifactError, DigestError, LicenseRequiredError
from keylatch.runtime._aligned_buffer import Buffer, aligned_buffer
from keylatch.runtime._graph_scan import GraphFacts, require_contained, scan_graph
from keylatch.runtime._manifest import (
    GATE_NAME,
    GRAPH_NAME,
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    SEALED_NAME,
    VALUES_NAME,
    WEIGHTS_NAME,
    FileDigest,
    Manifest,
    model_id_of,
    parse_manifest,
)
from keylatch.runtime._sealed_values import VALUES_LABEL, Array, unpack_values
from keylatch.runtime._sealed_weights import SealedWeights, unseal_weights

_CHUNK_BYTES = 4 * 2**20
_HINT = "get the locked model again from its issuer"
# O_NOFOLLOW: a link could lead out of the directory. O_NONBLOCK: a FIFO must not make us wait.
_READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A locked model in memory, its weights perhaps still on the way.

    Attributes:
        manifest: The parsed manifest.
        model_id: SHA-256 of manifest.json, hex.
        graph: model.onnx, verified.
        facts: What the graph would make onnxruntime read, checked.
        gate: gate.bin, verified.
        weights: model.onnx.data, being read; None if there is none.
        weights_digest: Its digest, being computed; None if they are verified already.
        unseal: From the license's key to sealed weights, decrypted; None if they are not sealed.
        unseal_values: From the license's key to the withheld values beside the model, by gate tensor name; None if
            there are none.
    """

    manifest: Manifest
    model_id: str
    graph: bytes
    facts: GraphFacts
    gate: Buffer
    weights: Future[Buffer] | None
    weights_digest: Future[None] | None
    unseal: Callable[[bytes], Buffer] | None = None
    unseal_values: Callable[[bytes], dict[str, Array]] | None = None

    def external(self, key: bytes | None = None) -> dict[str, Buffer]:
        """File name to bytes, for every file that holds external data; waits for the weights to be read.

        Args:
            key: Of sealed weights, from the license.

        Raises:
            LicenseRequiredError: The weights are sealed, and there is no key.
            IntegrityError: Sealed weights do not open.
        """
        loaded = {} if self.weights is None else {WEIGHTS_NAME: self.weights.result()}
        if self.unseal is not None:
            if key is None:
                raise LicenseRequiredError(
                    "the model's weights are sealed: without a license there is nothing to run",
                    hint="open it with a license, or get an artifact with plain weights",
                )
            loaded = {WEIGHTS_NAME: self.unseal(key)}
        return {GATE_NAME: self.gate, **loaded}

    def finish(self) -> None:
        """Wait until every file is verified.

        Raises:
            DigestError: If the weights are not those of the manifest; whatever was made of them must be discarded.
        """
        if self.weights_digest is not None:
            self.weights_digest.result()


def read_manifest(directory: Path) -> tuple[Manifest, str]:
    """Read only the manifest of a locked model.

    Returns:
        The manifest and the model_id.

    Raises:
        ArtifactError: If there is none, or it is malformed.
    """
    with _directory(directory) as folder:
        data = _read(folder, MANIFEST_NAME, limit=MAX_MANIFEST_BYTES).tobytes()
    return parse_manifest(data), model_id_of(data)


@contextmanager
def read_model_files(directory: Path) -> Iterator[ModelFiles]:
    """Read and verify a locked model.

    Manifest, graph and gate are verified before this yields, and before anything parses them. Large weights, which
    nothing parses, are hashed on another thread meanwhile: call `finish` before using what was made of them.

    Raises:
        ArtifactError: If a file is missing, is a link, has the wrong size, or the graph refers to other files.
        DigestError: If a file's bytes are not those of the manifest.
    """
    manifest, model_id = read_manifest(directory)
    with _directory(directory) as folder, ExitStack() as stack:
        weights, weights_digest = None, None
        expected = manifest.files.get(WEIGHTS_NAME)
        # Handing over between threads takes Python milliseconds: not for what is hashed in as many.
        if expected is not None and expected.size_bytes <= _CHUNK_BYTES:
            weights, weights_digest = Future[Buffer](), None
            weights.set_result(_read_verified(folder, WEIGHTS_NAME, manifest))
        elif expected is not None:
            hasher, reader = (stack.enter_context(ThreadPoolExecutor(1)) for _ in range(2))
            weights, weights_digest = _start_weights(folder, expected, reader, hasher)
        graph = _read_verified(folder, GRAPH_NAME, manifest).tobytes()
        gate = _read_verified(folder, GATE_NAME, manifest)
        facts = scan_graph(graph)
        require_contained(facts, {*manifest.files, WEIGHTS_NAME} if manifest.sealed else set(manifest.files))
        unseal = None if manifest.sealed is None else partial(_unseal, folder, model_id, manifest.sealed)
        values = None if manifest.values is None else partial(_unseal_values, folder, model_id, manifest)
        yield ModelFiles(manifest, model_id, graph, facts, gate, weights, weights_digest, unseal, values)


def read_sealed_values(directory: Path, key: bytes) -> dict[str, Array]:
    """The withheld values beside a locked model, for its owner.

    Args:
        directory: The model's.
        key: 32 bytes, from a license or the vault.

    Raises:
        ArtifactError: There are none, or a file is missing.
        IntegrityError: They do not open.
    """
    manifest, model_id = read_manifest(directory)
    with _directory(directory) as folder:
        return _unseal_values(folder, model_id, manifest, key)


@contextmanager
def _directory(path: Path) -> Iterator[int]:
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
def _opened(folder: int, name: str, *, limit: int, expected: int | None) -> Iterator[tuple[int, int]]:
    """The descriptor and size of a regular file inside the directory."""
    try:
        descriptor = os.open(name, _READ_FLAGS, dir_fd=folder)
    except FileNotFoundError:
        raise ArtifactError(f"{name} is missing from the locked model", hint=_HINT) from None
    except OSError as error:
        raise ArtifactError(f"{name} cannot be opened: {error.strerror}; links are not followed", hint=_HINT) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ArtifactError(f"{name} is not a regular file", hint=_HINT)
        if expected is not None and status.st_size != expected:
            raise DigestError(f"{name} has {status.st_size} bytes, expected {expected}", hint=_HINT)
        if status.st_size > limit:
            raise ArtifactError(f"{name} has {status.st_size} bytes, expected at most {limit}", hint=_HINT)
        yield descriptor, status.st_size
    finally:
        os.close(descriptor)


def _read(folder: int, name: str, *, limit: int, expected: int | None = None) -> Buffer:
    with _opened(folder, name, limit=limit, expected=expected) as (descriptor, size):
        buffer = aligned_buffer(size)
        _fill(descriptor, buffer, name)
        return buffer


def _fill(
    descriptor: int, buffer: Buffer, name: str, arrived: Callable[[memoryview], object] = lambda _piece: None
) -> None:
    """Read a whole file into a buffer; tells of each piece as it arrives."""
    view, position = memoryview(buffer.data), 0
    while position < len(view):
        count = os.preadv(descriptor, [view[position : position + _CHUNK_BYTES]], position)
        if count == 0:
            raise DigestError(f"{name} became shorter while it was read", hint="try again")
        arrived(view[position : position + count])
        position += count


def _read_verified(folder: int, name: str, manifest: Manifest) -> Buffer:
    expected = manifest.files[name]
    buffer = _read(folder, name, limit=expected.size_bytes, expected=expected.size_bytes)
    _require_digest(name, hashlib.sha256(buffer.data), expected)
    return buffer


def _start_weights(
    folder: int, expected: FileDigest, reader: ThreadPoolExecutor, hasher: ThreadPoolExecutor
) -> tuple[Future[Buffer], Future[None]]:
    """Start reading the weights on one thread, and hashing them on another, piece by piece as they arrive.

    For 100 MB reading takes 25 ms and hashing 70 ms, longer than making the session (58 ms): it has to start at once.
    """
    digest = hashlib.sha256()
    weights = reader.submit(_read_weights, folder, expected, lambda piece: hasher.submit(digest.update, piece))

    def verify() -> None:
        weights.result()  # every piece is queued by now, and the one hashing thread takes them in order
        hasher.submit(_require_digest, WEIGHTS_NAME, digest, expected).result()

    return weights, reader.submit(verify)


def _read_weights(folder: int, expected: FileDigest, arrived: Callable[[memoryview], object]) -> Buffer:
    size = expected.size_bytes
    with _opened(folder, WEIGHTS_NAME, limit=size, expected=size) as (descriptor, _):
        buffer = aligned_buffer(size)
        _fill(descriptor, buffer, WEIGHTS_NAME, arrived)
        return buffer


def _unseal(folder: int, model_id: str, sealed: SealedWeights, key: bytes) -> Buffer:
    with _opened(folder, SEALED_NAME, limit=sealed.size_bytes, expected=sealed.size_bytes) as (descriptor, _):
        return unseal_weights(partial(_read_at, descriptor), key, model_id, sealed)


def _unseal_values(folder: int, model_id: str, manifest: Manifest, key: bytes) -> dict[str, Array]:
    sealed = manifest.values
    if sealed is None:
        raise ArtifactError("the locked model has no sealed values", hint=_HINT)
    with _opened(folder, VALUES_NAME, limit=sealed.size_bytes, expected=sealed.size_bytes) as (descriptor, _):
        read = partial(_read_at, descriptor)
        return unpack_values(manifest.aside, unseal_weights(read, key, model_id, sealed, label=VALUES_LABEL))


def _read_at(descriptor: int, part: memoryview, offset: int) -> int:
    return os.preadv(descriptor, [part], offset)


def _require_digest(name: str, digest: Any, expected: FileDigest) -> None:
    if not hmac.compare_digest(digest.hexdigest(), expected.sha256):
        raise DigestError(f"{name} is not the file of the manifest: its SHA-256 differs", hint=_HINT)
