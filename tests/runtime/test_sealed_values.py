"""Withheld values that lie encrypted beside the model: the layout, what a manifest may say of them, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keylatch.errors import ArtifactError, IntegrityError
from keylatch.keys import canonical_json
from keylatch.runtime import (
    VALUES_LABEL,
    VALUES_NAME,
    FileDigest,
    GateTensor,
    Manifest,
    SealedWeights,
    model_id_of,
    pack_values,
    parse_manifest,
    read_sealed_values,
    seal_weights,
)
from keylatch.runtime._sealed_values import unpack_values, values_bytes

KEY = bytes(range(32))
TENSORS = (
    GateTensor("withheld_0", "float32", (700, 3), aside=True),
    GateTensor("withheld_1", "float16", (5,), aside=True),
    GateTensor("withheld_2", "float32", (1,), aside=True),
)
VALUES = {t.name: np.arange(np.prod(t.shape)).reshape(t.shape).astype(t.dtype) + 1 for t in TENSORS}
CHUNK = 1000


def manifest(**changes: Any) -> Manifest:
    files = {name: FileDigest(1, "ab" * 32) for name in ("model.onnx", "gate.bin", "model.onnx.data")}
    sealed = SealedWeights.of(values_bytes(TENSORS), CHUNK)
    facts = {"model": {"name": "m"}, "lock": {"method": "seal"}, "gate": TENSORS, "files": files, "values": sealed}
    return Manifest(**{**facts, **changes})


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """A manifest and its values.sealed; what else there is nobody reads here."""
    described = manifest()
    (tmp_path / "manifest.json").write_bytes(described.serialize())
    (tmp_path / "plain").write_bytes(pack_values(TENSORS, VALUES))
    assert described.values is not None
    seal_weights(
        tmp_path / "plain", tmp_path / VALUES_NAME, KEY, model_id_of(described.serialize()), described.values,
        label=VALUES_LABEL,
    )  # fmt: skip
    return tmp_path


def test_values_come_back(artifact: Path) -> None:
    found = read_sealed_values(artifact, KEY)
    assert found.keys() == VALUES.keys()
    for name, value in VALUES.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == value.dtype


def test_each_tensor_starts_on_a_multiple_of_64_bytes() -> None:
    plain = np.frombuffer(pack_values(TENSORS, VALUES), dtype=np.uint8).copy()
    starts = [value.ctypes.data - plain.ctypes.data for value in unpack_values(TENSORS, plain).values()]
    assert starts == [0, 8448, 8512]
    assert len(plain) == 8516


def _chunks(data: bytes) -> list[bytes]:
    return [data[start : start + CHUNK + 16] for start in range(0, len(data), CHUNK + 16)]


CHANGES = {
    "a flipped byte": lambda data: data[:500] + bytes([data[500] ^ 1]) + data[501:],
    "a flipped byte of a tag": lambda data: data[:-1] + bytes([data[-1] ^ 128]),
    "chunks exchanged": lambda data: b"".join([_chunks(data)[1], _chunks(data)[0], *_chunks(data)[2:]]),
    "a chunk repeated": lambda data: b"".join([_chunks(data)[0], *_chunks(data)[:1], *_chunks(data)[2:]]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_file_is_refused(artifact: Path, change: str) -> None:
    path = artifact / VALUES_NAME
    path.write_bytes(CHANGES[change](path.read_bytes()))
    with pytest.raises(IntegrityError):
        read_sealed_values(artifact, KEY)


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: b""])
def test_a_file_of_another_size_is_refused(artifact: Path, change: Any) -> None:
    path = artifact / VALUES_NAME
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ArtifactError, match=r"values\.sealed has \d+ bytes, expected"):
        read_sealed_values(artifact, KEY)


def test_a_missing_file_and_a_link_are_refused(artifact: Path) -> None:
    path = artifact / VALUES_NAME
    path.rename(artifact / "elsewhere")
    with pytest.raises(ArtifactError, match="is missing"):
        read_sealed_values(artifact, KEY)
    path.symlink_to(artifact / "elsewhere")
    with pytest.raises(ArtifactError, match="links are not followed"):
        read_sealed_values(artifact, KEY)


def test_another_key_model_or_kind_of_file_does_not_open(artifact: Path) -> None:
    with pytest.raises(IntegrityError):
        read_sealed_values(artifact, bytes(32))
    described = manifest()
    assert described.values is not None
    identity = model_id_of(described.serialize())
    for model_id, label in ((identity, b"keylatch/1 sealed weights"), ("cd" * 32, VALUES_LABEL)):
        seal_weights(artifact / "plain", artifact / VALUES_NAME, KEY, model_id, described.values, label=label)
        with pytest.raises(IntegrityError):
            read_sealed_values(artifact, KEY)


def test_a_manifest_reads_back_and_names_what_a_license_brings() -> None:
    own = GateTensor("blocks.scale", "float32", (3, 1, 1))
    described = manifest(gate=(own, *TENSORS))
    assert parse_manifest(described.serialize()) == described
    assert [tensor.name for tensor in described.secrets] == ["blocks.scale", "withheld_values.key"]
    assert described.aside == TENSORS


def _edited(change: Any) -> bytes:
    fields = json.loads(manifest().serialize())
    change(fields)
    return canonical_json(fields)


EDITS = {
    "more bytes than its tensors": lambda f: f["files"][VALUES_NAME].update(bytes=10**6),
    "a tensor more": lambda f: f["gate"].append({**f["gate"][0], "name": "more"}),
    "no file": lambda f: f["files"].pop(VALUES_NAME),
    "no tensor in it": lambda f: [tensor.pop("file") for tensor in f["gate"]],
    "another file": lambda f: f["gate"][0].update(file="gate.bin"),
    "a path": lambda f: f["gate"][0].update(file="../values.sealed"),
    "a huge tensor": lambda f: f["gate"][0].update(shape=[2**31 - 1, 2**31 - 1]),
    "more than numbers hold": lambda f: f["gate"][0].update(shape=[2**31 - 1] * 3),
    "no chunk": lambda f: f["files"][VALUES_NAME].update(chunk_bytes=0),
    "a reserved name": lambda f: f["gate"][0].update(name="withheld_values.key"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_manifest_that_does_not_add_up_is_refused(edit: str) -> None:
    with pytest.raises(ArtifactError):
        parse_manifest(_edited(EDITS[edit]))
