"""Read a locked model's files: each once, bounded, from inside its directory; what was hashed is what is used."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from keylatch.errors import ArtifactError, LicenseRequiredError
from keylatch.runtime._aligned_buffer import Buffer
from keylatch.runtime._graph_scan import GraphFacts, require_contained, scan_graph
from keylatch.runtime._manifest import (
    GATE_NAME,
    GRAPH_NAME,
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    SEALED_NAME,
    VALUES_NAME,
    WEIGHTS_NAME,
    Manifest,
    model_id_of,
    parse_manifest,
)
from keylatch.runtime._sealed_values import VALUES_LABEL, Array, unpack_values
from keylatch.runtime._sealed_weights import SealedWeights, unseal_weights
from keylatch.runtime._verified_files import HINT, opened_directory, opened_file, read_file, read_verified
from keylatch.runtime._weights_file import loaded_weights


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A locked model in memory, its weights perhaps still on the way.

    Attributes:
        manifest: The parsed manifest.
        model_id: SHA-256 of manifest.json, hex.
        graph: model.onnx, verified.
        facts: What the graph would make onnxruntime read, checked.
        gate: gate.bin, verified.
        weights: model.onnx.data, mapped or being read; None if there is none.
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
        """File name to bytes, for every file that holds external data; waits for the weights to be at hand.

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
    with opened_directory(directory) as folder:
        data = read_file(folder, MANIFEST_NAME, limit=MAX_MANIFEST_BYTES).tobytes()
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
    with opened_directory(directory) as folder, ExitStack() as stack:
        weights, weights_digest = None, None
        expected = manifest.files.get(WEIGHTS_NAME)
        if expected is not None:
            weights, weights_digest = stack.enter_context(loaded_weights(folder, expected))
        graph = read_verified(folder, GRAPH_NAME, manifest.files[GRAPH_NAME]).tobytes()
        gate = read_verified(folder, GATE_NAME, manifest.files[GATE_NAME])
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
    with opened_directory(directory) as folder:
        return _unseal_values(folder, model_id, manifest, key)


def _unseal(folder: int, model_id: str, sealed: SealedWeights, key: bytes) -> Buffer:
    with opened_file(folder, SEALED_NAME, limit=sealed.size_bytes, expected=sealed.size_bytes) as (descriptor, _):
        return unseal_weights(partial(_read_at, descriptor), key, model_id, sealed)


def _unseal_values(folder: int, model_id: str, manifest: Manifest, key: bytes) -> dict[str, Array]:
    sealed = manifest.values
    if sealed is None:
        raise ArtifactError("the locked model has no sealed values", hint=HINT)
    with opened_file(folder, VALUES_NAME, limit=sealed.size_bytes, expected=sealed.size_bytes) as (descriptor, _):
        read = partial(_read_at, descriptor)
        return unpack_values(manifest.aside, unseal_weights(read, key, model_id, sealed, label=VALUES_LABEL))


def _read_at(descriptor: int, part: memoryview, offset: int) -> int:
    return os.preadv(descriptor, [part], offset)
