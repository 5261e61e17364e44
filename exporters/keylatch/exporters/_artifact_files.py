"""Finish an artifact's directory: the manifest, what is encrypted beside the model, and the move into place."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Collection, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from blake3 import blake3

from keylatch.errors import ExportError
from keylatch.keys import MAX_LICENSE_BYTES
from keylatch.runtime import (
    GATE_NAME,
    GRAPH_NAME,
    KEY_BYTES,
    KEY_NAME,
    MANIFEST_NAME,
    SEALED_NAME,
    VALUES_KEY_NAME,
    VALUES_LABEL,
    VALUES_NAME,
    WEIGHTS_NAME,
    FileDigest,
    GateTensor,
    Manifest,
    SealedWeights,
    model_id_of,
    pack_values,
    seal_weights,
)

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

# Beyond that a license is slow to send and to open, and all licenses would carry the same bytes.
SIDE_FILE_BYTES = 8 * 2**20
_LICENSE_BYTES = MAX_LICENSE_BYTES - 4 * 2**20  # what is left of a license for values


def tensors_aside(
    values: Mapping[str, Array], withheld: Collection[str], side_file: bool | str, *, domains: bool, marked: bool
) -> tuple[str, ...]:
    """Which gate tensors go into values.sealed.

    Args:
        values: Gate tensor name to secret value.
        withheld: Names of gate tensors that are weights.
        side_file: Whether they do; ``auto`` if they are more than `SIDE_FILE_BYTES`.
        domains: Whether licenses differ by domains.
        marked: Whether licenses differ by a fingerprint.

    Raises:
        ExportError: Values that differ from license to license, or none; or more than licenses hold.
    """
    size = sum(value.nbytes for value in values.values())
    weights = tuple(name for name in values if name in withheld)
    held = sum(values[name].nbytes for name in weights)
    fixed = "domains" if domains else "a fingerprint" if marked else ""
    if side_file is True and (fixed or not weights):
        raise ExportError(
            f"with {fixed} each license brings other values" if fixed else "the lock withholds no weights to put aside",
            hint="leave the side file out",
        )
    if side_file is True or (side_file == "auto" and held > SIDE_FILE_BYTES and not fixed):
        return weights
    if size > _LICENSE_BYTES:
        hint = "withhold fewer weights" + ("" if fixed else f", or let a side file, {VALUES_NAME}, hold them")
        raise ExportError(f"a license would carry {size:,} bytes, expected at most {_LICENSE_BYTES:,}", hint=hint)
    return ()


def write_manifest(
    folder: Path,
    facts: dict[str, Any],
    lock: dict[str, Any],
    values: Mapping[str, Array],
    *,
    sealed: bool,
    aside: Collection[str] = (),
) -> Manifest:
    """Write manifest.json beside model.onnx, its weights and gate.bin; gives it parsed."""
    gate = tuple(GateTensor(name, value.dtype.name, value.shape, name in aside) for name, value in values.items())
    hashed = (GRAPH_NAME, GATE_NAME) if sealed else (GRAPH_NAME, WEIGHTS_NAME, GATE_NAME)
    files = {name: _digest(folder / name) for name in hashed}
    weights = SealedWeights.of((folder / WEIGHTS_NAME).stat().st_size) if sealed else None
    plain = len(pack_values([tensor for tensor in gate if tensor.aside], values))
    manifest = Manifest(facts, lock, gate, files, weights, SealedWeights.of(plain) if aside else None)
    (folder / MANIFEST_NAME).write_bytes(manifest.serialize())
    return manifest


def seal_files(folder: Path, manifest: Manifest, values: Mapping[str, Array]) -> dict[str, Array]:
    """Encrypt what the manifest says is encrypted; gives the keys, which a license has to bring.

    Args:
        folder: The artifact's directory, its manifest written.
        manifest: It.
        values: Gate tensor name to secret value.
    """
    model_id, keys = model_id_of(manifest.serialize()), dict[str, Array]()
    if manifest.sealed is not None:
        key = secrets.token_bytes(KEY_BYTES)
        seal_weights(folder / WEIGHTS_NAME, folder / SEALED_NAME, key, model_id, manifest.sealed)
        (folder / WEIGHTS_NAME).unlink()
        keys[KEY_NAME] = np.frombuffer(key, dtype=np.uint8)
    if manifest.values is not None:
        key = secrets.token_bytes(KEY_BYTES)
        plain = pack_values(manifest.aside, values)
        seal_weights(BytesIO(plain), folder / VALUES_NAME, key, model_id, manifest.values, label=VALUES_LABEL)
        keys[VALUES_KEY_NAME] = np.frombuffer(key, dtype=np.uint8)
    return keys


def _digest(path: Path) -> FileDigest:
    return FileDigest(path.stat().st_size, blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest(), "blake3")


def publish(folder: Path, target: Path) -> None:
    """Move a finished directory into place; an artifact that stood there is kept until the new one stands."""
    folder.chmod(0o755)
    for file in folder.iterdir():
        _sync(file)
    _sync(folder)
    if target.exists():
        retired = folder.with_name(folder.name + ".old")
        target.rename(retired)
        try:
            folder.rename(target)
        except OSError:
            retired.rename(target)
            raise
        shutil.rmtree(retired)
    else:
        folder.rename(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
