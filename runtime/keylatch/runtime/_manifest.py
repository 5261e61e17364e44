"""The manifest of a locked model: what it is, which files it has, which tensors a license brings.

`manifest.json` is canonical JSON, and its SHA-256 is the model's identity, the `model_id` that a license names.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from keylatch.errors import ArtifactError
from keylatch.keys import canonical_json, parse_json_object
from keylatch.runtime._sealed_values import VALUES_KEY_NAME, values_bytes
from keylatch.runtime._sealed_weights import KEY_BYTES, KEY_NAME, MAX_CHUNK_BYTES, SealedWeights

FORMAT = "keylatch/1"
MANIFEST_NAME, GRAPH_NAME, WEIGHTS_NAME, GATE_NAME = "manifest.json", "model.onnx", "model.onnx.data", "gate.bin"
SEALED_NAME = "weights.sealed"  # stands in the place of model.onnx.data
VALUES_NAME = "values.sealed"  # withheld values that are too many for licenses

MAX_MANIFEST_BYTES = 4 * 2**20
MAX_FILE_BYTES = {
    GRAPH_NAME: 2**31 - 1,  # protobuf's own limit
    GATE_NAME: 2**30,
    WEIGHTS_NAME: 2**40,
    SEALED_NAME: 2**40,
    VALUES_NAME: 2**40,
}
MAX_GATE_TENSORS = 4096

DTYPES = {
    "bool": 1, "uint8": 1, "int8": 1, "float16": 2, "uint16": 2, "int16": 2,
    "float32": 4, "int32": 4, "uint32": 4, "float64": 8, "int64": 8, "uint64": 8,
}  # fmt: skip

Algorithm: TypeAlias = Literal["sha256", "blake3"]

_DIGEST = re.compile(r"[0-9a-f]{64}")
_HINT = "get the locked model again from its issuer"


@dataclass(frozen=True, slots=True)
class GateTensor:
    """A tensor that a license brings: its name in the graph, dtype and shape.

    Attributes:
        name: In the graph.
        dtype: A key of `DTYPES`.
        shape: Sizes, 1 or more.
        aside: Whether its value lies in values.sealed, and the license brings the key of that.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    aside: bool = False


@dataclass(frozen=True, slots=True)
class FileDigest:
    """What one of the model's files is held to.

    Attributes:
        size_bytes: Of the file.
        hexdigest: Of its bytes, 64 characters.
        algorithm: BLAKE3 (docs/decisions/0018); SHA-256 in artifacts that were exported earlier.
    """

    size_bytes: int
    hexdigest: str
    algorithm: Algorithm = "sha256"


@dataclass(frozen=True, slots=True)
class Manifest:
    """A locked model's manifest.

    Attributes:
        model: The network's public facts: name, inputs, outputs, pixel convention.
        lock: The lock's public description.
        gate: The tensors that a license brings.
        files: The model's files, but for sealed weights.
        sealed: The encrypted weights, which are not hashed: each chunk has its tag.
        values: The encrypted withheld values, likewise.
    """

    model: Mapping[str, Any]
    lock: Mapping[str, Any]
    gate: tuple[GateTensor, ...]
    files: Mapping[str, FileDigest] = field(default_factory=dict)
    sealed: SealedWeights | None = None
    values: SealedWeights | None = None

    @property
    def secrets(self) -> tuple[GateTensor, ...]:
        """What a license brings: gate tensors, and the keys of sealed weights and values."""
        own = tuple(tensor for tensor in self.gate if not tensor.aside)
        keyed = ((KEY_NAME, self.sealed), (VALUES_KEY_NAME, self.values))
        return (*own, *(GateTensor(name, "uint8", (KEY_BYTES,)) for name, sealed in keyed if sealed is not None))

    @property
    def aside(self) -> tuple[GateTensor, ...]:
        """The gate tensors whose values lie in values.sealed, in its order."""
        return tuple(tensor for tensor in self.gate if tensor.aside)

    def serialize(self) -> bytes:
        """Canonical JSON; the bytes of manifest.json."""
        return canonical_json(
            {
                "format": FORMAT,
                "model": self.model,
                "lock": self.lock,
                "gate": [_gate_entry(tensor) for tensor in self.gate],
                "files": {name: {"bytes": f.size_bytes, f.algorithm: f.hexdigest} for name, f in self.files.items()}
                | self._sealed_entry(),
            }
        )

    def _sealed_entry(self) -> dict[str, dict[str, object]]:
        sealed = {SEALED_NAME: self.sealed, VALUES_NAME: self.values}
        return {
            name: {"bytes": file.size_bytes, "chunk_bytes": file.chunk_bytes}
            for name, file in sealed.items()
            if file is not None
        }


def _gate_entry(tensor: GateTensor) -> dict[str, object]:
    entry: dict[str, object] = {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape)}
    return {**entry, "file": VALUES_NAME} if tensor.aside else entry


def model_id_of(manifest_bytes: bytes) -> str:
    """The model's identity: SHA-256 of manifest.json, hex."""
    return hashlib.sha256(manifest_bytes).hexdigest()


def parse_manifest(data: bytes) -> Manifest:
    """Read a manifest.

    Args:
        data: The bytes of manifest.json.

    Raises:
        FormatError: If it is not strict JSON.
        ArtifactError: If it is no manifest of this format, or names unsafe files.
    """
    fields = parse_json_object(data, "manifest.json", fractions=True)
    if fields.get("format") != FORMAT:
        raise ArtifactError(
            f"manifest.json has format {fields.get('format')!r:.40}, expected {FORMAT!r}",
            hint="update keylatch, or get the model in this format",
        )
    if set(fields) != {"format", "model", "lock", "gate", "files"} or canonical_json(fields) != data:
        raise ArtifactError("manifest.json is not in canonical form", hint=_HINT)
    model, lock = fields["model"], fields["lock"]
    if not isinstance(model, dict) or not isinstance(lock, dict):
        raise ArtifactError("manifest.json describes no model or no lock", hint=_HINT)
    files, sealed, values = _parse_files(fields["files"])
    manifest = Manifest(model, lock, _parse_gate(fields["gate"]), files, sealed, values)
    _check_values(manifest)
    return manifest


def _check_values(manifest: Manifest) -> None:
    """The size of values.sealed is that of the tensors that are in it: a bound before anything is allocated."""
    held = None if not manifest.aside else values_bytes(manifest.aside)
    if held != (None if manifest.values is None else manifest.values.plain_bytes):
        raise ArtifactError(f"manifest.json has tensors in {VALUES_NAME} that do not make up its size", hint=_HINT)


def _parse_gate(entries: object) -> tuple[GateTensor, ...]:
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_GATE_TENSORS:
        raise ArtifactError("manifest.json lists no gate tensors", hint=_HINT)
    gate = tuple(_parse_gate_tensor(entry) for entry in entries)
    if len({tensor.name for tensor in gate}) != len(gate):
        raise ArtifactError("manifest.json lists a gate tensor twice", hint=_HINT)
    reserved = [tensor.name for tensor in gate if tensor.name in (KEY_NAME, VALUES_KEY_NAME)]
    if reserved:
        raise ArtifactError(f"manifest.json has a gate tensor called {reserved[0]}, which is reserved", hint=_HINT)
    return gate


def _parse_gate_tensor(entry: object) -> GateTensor:
    match entry:
        case {"name": str(name), "dtype": str(dtype), "shape": list(shape), **rest} if dtype in DTYPES:
            if rest in ({}, {"file": VALUES_NAME}) and all(type(size) is int and 0 < size < 2**31 for size in shape):
                return GateTensor(name, dtype, tuple(shape), bool(rest))
    raise ArtifactError("manifest.json has a malformed gate tensor", hint=_HINT)


def _parse_files(entries: object) -> tuple[dict[str, FileDigest], SealedWeights | None, SealedWeights | None]:
    if not isinstance(entries, dict):
        raise ArtifactError("manifest.json lists no files", hint=_HINT)
    for name in entries:
        # Only these plain names exist in this format: no separators, no links, no parent directories.
        if name not in MAX_FILE_BYTES:
            raise ArtifactError(
                f"manifest.json names the file {name!r:.60}, expected one of {', '.join(MAX_FILE_BYTES)}", hint=_HINT
            )
    missing = {GRAPH_NAME, GATE_NAME} - entries.keys()
    if missing:
        raise ArtifactError(f"manifest.json does not list {min(missing)}", hint=_HINT)
    if {WEIGHTS_NAME, SEALED_NAME} <= entries.keys():
        raise ArtifactError(f"manifest.json lists both {WEIGHTS_NAME} and {SEALED_NAME}", hint=_HINT)
    sealed, values = (
        _parse_sealed(name, entries[name]) if name in entries else None for name in (SEALED_NAME, VALUES_NAME)
    )
    hashed = entries.keys() - {SEALED_NAME, VALUES_NAME}
    return {name: _parse_digest(name, entry) for name, entry in entries.items() if name in hashed}, sealed, values


def _parse_sealed(name: str, entry: object) -> SealedWeights:
    match entry:
        case {"bytes": int(size), "chunk_bytes": int(chunk), **rest} if not rest and {type(size), type(chunk)} == {int}:
            if 1 <= chunk <= MAX_CHUNK_BYTES and 0 < size <= MAX_FILE_BYTES[name]:
                sealed = SealedWeights(size, chunk)
                if sealed.plain_bytes >= 0 and sealed == SealedWeights.of(sealed.plain_bytes, chunk):
                    return sealed
    raise ArtifactError(f"manifest.json has malformed sizes for {name}", hint=_HINT)


def _parse_digest(name: str, entry: Any) -> FileDigest:
    match entry:
        case {"bytes": int(size), "sha256": str(digest), **rest} | {
            "bytes": int(size),
            "blake3": str(digest),
            **rest,
        } if not rest and type(size) is int:
            if 0 <= size <= MAX_FILE_BYTES[name] and _DIGEST.fullmatch(digest):
                return FileDigest(size, digest, "blake3" if "blake3" in entry else "sha256")
    raise ArtifactError(f"manifest.json has a malformed size or digest for {name}", hint=_HINT)
