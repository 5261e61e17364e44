"""The attacked model, as an outsider has it: the artifact's files and nothing else."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from keylatch.audit._gates import Gate, find_gates
from keylatch.audit.onnx_network import OnnxNetwork, load_onnx_network
from keylatch.errors import ArtifactError, InputError
from keylatch.locks import InputSpec
from keylatch.runtime import GRAPH_NAME, MANIFEST_NAME, Manifest, model_id_of, parse_manifest

_IMAGE_RANK = 2


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """A locked model under attack.

    Attributes:
        path: The artifact's directory.
        model_id: SHA-256 of its manifest, hex.
        manifest: What the artifact says of itself.
        spec: The input convention.
        gates: Where the lock meets the network, in the network's order.
    """

    path: Path
    model_id: str
    manifest: Manifest
    spec: InputSpec
    gates: tuple[Gate, ...]
    _network: OnnxNetwork

    @property
    def name(self) -> str:
        """The model's name."""
        return str(self.manifest.model.get("name", self.path.stem))

    @property
    def gate_names(self) -> tuple[str, ...]:
        """Names of the tensors that a license brings."""
        return tuple(tensor.name for tensor in self.manifest.gate)

    def network(self) -> OnnxNetwork:
        """A fresh trainable copy of the locked network. Gate tensors are buffers with their locked defaults."""
        return copy.deepcopy(self._network)


def load_target(path: str | PathLike[str]) -> Target:
    """Load a locked model to attack it.

    Args:
        path: The artifact's directory.

    Raises:
        InputError: It is not a locked model.
        ArtifactError: Its files are missing or damaged.
    """
    folder = Path(path)
    data = _read_manifest(folder)
    manifest = parse_manifest(data)
    fields = manifest.model.get("input", {})
    if not {"channels", "height", "width"} <= set(fields):
        raise ArtifactError("manifest.json does not describe the image input", hint="export the model again")
    spec = InputSpec.from_json({key: fields[key] for key in InputSpec.__dataclass_fields__ if key in fields})
    if manifest.sealed is not None:
        raise InputError(
            f"{folder} has sealed weights: without a license there is nothing to attack",
            hint="audit the same locked network, exported with plain weights",
        )
    frozen = [tensor.name for tensor in manifest.gate]
    network = load_onnx_network(folder / GRAPH_NAME, frozen=frozen)
    missing = sorted(set(frozen) - set(network.initializer_names))
    if missing:
        raise InputError(f"{folder} is not locked: its graph does not use {missing[0]}", hint="export it again")
    return Target(folder, model_id_of(data), manifest, spec, find_gates(network, frozen), network)


def _read_manifest(folder: Path) -> bytes:
    if not folder.exists():
        raise InputError(f"{folder} does not exist", hint="give the directory that `keylatch export` wrote")
    try:
        return (folder / MANIFEST_NAME).read_bytes()
    except OSError:
        raise InputError(
            f"{folder} is not a locked model: it has no {MANIFEST_NAME}",
            hint="lock the network with `keylatch lock`, and give the directory that `keylatch export` wrote",
        ) from None
