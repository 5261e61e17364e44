"""Small locked models of several kinds, trained on digits, with the images to measure them on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

import networks
from keylatch.audit._images import AuditImages, LabeledImages
from keylatch.audit._owner import Owner
from keylatch.audit._target import Target, load_target
from keylatch.audit.onnx_network import without_branches
from keylatch.audit.survival import Change, SurvivalRow, survival_changes
from keylatch.audit.survival._change import Changed, Subject
from keylatch.exporters import export, export_plain
from keylatch.locks import InputSpec, LockSecret
from keylatch.runtime import FileDigest, GateTensor, Manifest

GATED = ["6", "9", "14"]
COUNT = 200


@dataclass(frozen=True)
class World:
    """A locked model, its owner, and images."""

    target: Target
    owner: Owner
    images: AuditImages

    def subject(self, values: Mapping[str, np.ndarray] | None = None) -> Subject:
        """Keyed calibration unless other values are given."""
        chosen = self.owner.values if values is None else values
        return Subject(self.target, chosen, self.images.evaluation.images, self.images.attacker.images)

    def apply(self, name: str, setting: str = "") -> Changed:
        return change(name, setting).apply(self.subject())

    def graph(self) -> Any:
        """The artifact's graph with its tensors, its gates in force: what changes are applied to."""
        return without_branches(onnx.load(self.target.path / "model.onnx"))


def change(name: str, setting: str = "") -> Change:
    return next(one for one in survival_changes() if (one.name, one.setting) == (name, setting))


def row(rows: list[SurvivalRow], name: str, setting: str = "") -> SurvivalRow:
    return next(one for one in rows if (one.name, one.setting) == (name, setting))


def tensors(graph: Any) -> dict[str, np.ndarray]:
    """Initializers by name, without external ones."""
    inside = [one for one in graph.graph.initializer if one.data_location != onnx.TensorProto.EXTERNAL]
    return {one.name: onnx.numpy_helper.to_array(one) for one in inside}


def audit_images(spec: InputSpec) -> AuditImages:
    digits = networks.trained_digits()
    pixels = (digits.images[: COUNT + 60] * 255).round().to(torch.uint8)
    ready, labels = spec.from_pixels(pixels), digits.labels
    evaluation = LabeledImages(ready[:COUNT], labels[:COUNT])
    return AuditImages(LabeledImages(ready[COUNT:], labels[COUNT : COUNT + 60]), evaluation, 10)


class Nhwc(torch.nn.Module):
    """Digits in [-1, 1], channels last."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x.permute(0, 3, 1, 2) * 0.5 + 0.5)


NHWC = InputSpec(3, networks.SIZE, networks.SIZE, mean=(0.5,), std=(0.5,), layout="NHWC")


def code_world(folder: Path, kind: str) -> World:
    """A code lock; kind: ``float32``, ``float16``, ``uint8`` or ``nhwc``."""
    network = networks.trained_digits().network
    if kind == "nhwc":
        locked = networks.lock(Nhwc(network).eval(), NHWC, layers=[f"inner.{name}" for name in GATED])
    else:
        locked = networks.lock(network, layers=GATED)
    options: Any = {"uint8_input": kind == "uint8", "precision": "float16" if kind == "float16" else "float32"}
    exported = export(locked.module, locked.secret, folder / "digits.latch", **options)
    return _world(folder / "digits.latch", dict(exported.secret_values), locked.secret)


def withheld_world(folder: Path, name: str = "9.weight") -> World:
    """No control anywhere: a layer's weight is the only gate tensor, noise in the file."""
    path = folder / "digits.latch"
    graph = onnx.load(export_plain(networks.trained_digits().network, networks.SPEC, path))
    tensor = next(one for one in graph.graph.initializer if one.name == name)
    secret = onnx.numpy_helper.to_array(tensor).copy()
    noise = np.random.default_rng(0).permuted(secret, axis=None)
    tensor.CopyFrom(onnx.numpy_helper.from_array(noise, name))
    onnx.external_data_helper.set_external_data(tensor, "gate.bin")
    (path / "model.onnx").unlink()
    onnx.save(graph, path / "model.onnx")
    (path / "manifest.json").write_bytes(_manifest(path, GateTensor(name, "float32", secret.shape)).serialize())
    return _world(path, {name: secret}, None)


def _manifest(path: Path, gate: GateTensor) -> Manifest:
    files = {one.name: FileDigest(one.stat().st_size, _sha256(one)) for one in path.iterdir() if one.suffix != ".json"}
    model = {"name": "digits", "input": networks.SPEC.to_json()}
    return Manifest(model, {"method": "withheld"}, (gate,), files)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _world(path: Path, values: dict[str, np.ndarray], secret: LockSecret | None) -> World:
    target = load_target(path)
    kept = {name: value for name, value in values.items() if name in target.gate_names}
    return World(target, Owner(kept, secret), audit_images(target.spec))
