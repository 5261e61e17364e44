"""Exported artifacts, and stock onnxruntime to open them with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from keylatch.exporters import Exported, export
from keylatch.keys import FileDeviceKey, FileIssuerKey, current_time, issue_license
from keylatch.runtime import values_to_license
from networks import Locked

FILES = ["gate.bin", "manifest.json", "model.onnx", "model.onnx.data"]


@dataclass(frozen=True)
class Artifact:
    """An exported artifact and the lock that it was made from."""

    locked: Locked
    exported: Exported

    @property
    def path(self) -> Path:
        return self.exported.path

    @property
    def gate_values(self) -> dict[str, np.ndarray]:
        """Secret values of the gate tensors alone."""
        return {k: v for k, v in self.exported.secret_values.items() if not k.startswith("known_answer.")}

    def credentials(self, issuer: FileIssuerKey, device: FileDeviceKey) -> dict[str, Any]:
        """Arguments of `InferenceSession`, a license among them."""
        now = current_time()
        license = issue_license(
            issuer=issuer,
            devices=[device.public],
            model_id=self.exported.model_id,
            secret_values=values_to_license(self.exported.secret_values),
            customer="ACME Vision",
            not_before=now - 60,
            expires_at=now + 3600,
        )
        return {"license": license, "key": device, "trust": issuer.public}

    def new_credentials(self, folder: Path) -> dict[str, Any]:
        """The same for a new issuer and a new device, whose key is written to the folder."""
        return self.credentials(FileIssuerKey.generate(), FileDeviceKey.generate(folder / "device.key"))

    def graph(self) -> onnx.ModelProto:
        """The graph as it is on disk, external data not read."""
        return onnx.load(self.path / "model.onnx", load_external_data=False)

    def stock(self, values: Mapping[str, np.ndarray] | None = None) -> Any:
        """Stock onnxruntime, from the path; keyed if values are given."""
        options = onnxruntime.SessionOptions()
        if values:
            tensors = [onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(v)) for v in values.values()]
            options.add_external_initializers(list(values), tensors)
        return onnxruntime.InferenceSession(self.path / "model.onnx", options, providers=["CPUExecutionProvider"])

    def run(self, images: np.ndarray, values: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
        """The first output, of stock onnxruntime."""
        return self.stock(values).run(None, {"image": images})[0]


def make_artifact(locked: Locked, path: Path, **options: Any) -> Artifact:
    return Artifact(locked, export(locked.module, locked.secret, path, report=locked.report, **options))


def external_location(tensor: onnx.TensorProto) -> str | None:
    """The file that an initializer's bytes are in, None if they are in the graph."""
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return None
    return {entry.key: entry.value for entry in tensor.external_data}["location"]
