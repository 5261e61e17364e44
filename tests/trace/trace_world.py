"""A marked model with its licenses, and what leaks of it look like."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch

import networks
from keylatch.audit import Owner, Target, load_target
from keylatch.audit.onnx_network import OnnxNetwork, without_branches
from keylatch.exporters import Exported
from keylatch.keys import Fingerprint, Marked
from keylatch.trace import Marks

Values = Mapping[str, np.ndarray]
LICENSES = 40


@dataclass(frozen=True)
class MarkedModel:
    exported: Exported
    digits: networks.Digits
    marks: Marks
    target: Target

    def copy_of(self, index: int) -> dict[str, np.ndarray]:
        """The gate tensors that license `index` brings."""
        return self.marks.fingerprint.marked(self.marks.values, self.marks.licenses[index].mark)

    def opened(self, values: Values) -> OnnxNetwork:
        """The opened network, as a customer who reads his own memory has it."""
        return Owner({name: values[name] for name in self.target.gate_names}, None).unlocked(self.target)

    def weights(self, values: Values) -> dict[str, np.ndarray]:
        """Only what a license brings, under other names."""
        return {f"layer{index}.weight": values[name].astype(float) for index, name in enumerate(self.marks.names)}

    def names(self, trace: object) -> list[int]:
        """Indices of the licenses that a trace names."""
        ids = [marked.licenses for marked in self.marks.licenses]
        return sorted(ids.index(suspect.licenses) for suspect in trace.named)  # type: ignore[attr-defined]


def marked_model(exported: Exported, digits: networks.Digits) -> MarkedModel:
    fingerprint = Fingerprint.from_arrays(exported.secret_values)
    assert fingerprint is not None
    target = load_target(exported.path)
    values = {name: exported.secret_values[name] for name in target.gate_names}
    ids = [str(uuid.UUID(int=index, version=4)) for index in range(LICENSES)]
    licenses = [Marked(mark=name, customer=f"customer {index}", licenses=(name,)) for index, name in enumerate(ids)]
    return MarkedModel(exported, digits, Marks(fingerprint, values, licenses), target)


def write_opened(model: MarkedModel, values: Values, folder: Path) -> Path:
    """The opened model as one ONNX file that any tool runs: what a customer could pass on."""
    work = folder / "copied"
    shutil.copytree(model.exported.path, work)
    proto = onnx.load(work / "model.onnx")
    for tensor in proto.graph.initializer:
        if tensor.name in values:
            replaced = onnx.numpy_helper.from_array(np.ascontiguousarray(values[tensor.name]), tensor.name)
            tensor.CopyFrom(replaced)
    path = folder / "leaked.onnx"
    onnx.save(without_branches(proto), path)
    return path


def fine_tuned(model: MarkedModel, values: Values, *, rate: float, epochs: int = 1) -> dict[str, np.ndarray]:
    """All tensors of an opened network after training on its images."""
    network = model.opened(values)
    for name in model.marks.names:
        network.substitute(name, torch.nn.Parameter(torch.from_numpy(np.array(values[name]))))
    network.requires_grad_(True)
    optimizer = torch.optim.SGD(network.parameters(), rate, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for batch in torch.randperm(len(model.digits.images), generator=generator).split(32):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(network(model.digits.images[batch]), model.digits.labels[batch])
            loss.backward()
            optimizer.step()
    return {name: value.detach().numpy().astype(float) for name, value in network.state_dict().items()}
