"""Export a locked network as an artifact directory that has proved itself."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from keylatch.errors import ExportError
from keylatch.exporters._artifact_files import publish, seal_files, tensors_aside, write_manifest
from keylatch.exporters._bfloat16 import plain_in_bfloat16, require_opset, rounded
from keylatch.exporters._bfloat16_operators import use_bfloat16_kernels
from keylatch.exporters._bfloat16_proof import provable
from keylatch.exporters._domain_secrets import domain_secrets
from keylatch.exporters._fingerprinting import choose_fingerprint
from keylatch.exporters._layout import write_graph
from keylatch.exporters._locked_graph import locked_graph
from keylatch.exporters._onnx_program import INPUT_NAME, InPrecision, Precision, to_onnx
from keylatch.exporters._proof import Proof, prove
from keylatch.keys import canonical_json
from keylatch.locks import InputSpec, LockedModule, LockReport, LockSecret
from keylatch.runtime import GATE_NAME, GRAPH_NAME, WEIGHTS_NAME, model_id_of

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

SideFile: TypeAlias = bool | Literal["auto"]

METADATA_KEY = "keylatch.lock"


@dataclass(frozen=True, slots=True, repr=False)
class Exported:
    """An exported artifact.

    Attributes:
        path: Its directory.
        model_id: SHA-256 of its manifest, hex; licenses name it.
        secret_values: For the vault's section of this model: what a license carries. Secret.
        proof: What the export was held to.
    """

    path: Path
    model_id: str
    secret_values: Mapping[str, Array]
    proof: Proof

    def __repr__(self) -> str:
        return f"Exported({str(self.path)!r}, model {self.model_id[:8]}…, {len(self.secret_values)} secret values)"


def export(
    module: LockedModule,
    secret: LockSecret,
    path: str | PathLike[str],
    *,
    report: LockReport | None = None,
    precision: Precision = "float32",
    uint8_input: bool = False,
    sealed_weights: bool = False,
    side_file: SideFile = "auto",
    fingerprint: bool = False,
    name: str | None = None,
    opset: int | None = None,
    overwrite: bool = False,
) -> Exported:
    """Export a locked module.

    The artifact is made in a temporary directory beside its place, proved there against the PyTorch module (keyed and
    locked, onnx.checker, stock onnxruntime), and moved into place. After an error nothing is left behind.

    Args:
        module: The locked module.
        secret: What opens it, for the proof; nothing of it is written.
        path: The artifact's directory, e.g. ``resnet50.latch``.
        report: The lock's report; its public figures go into the artifact.
        precision: What the network computes in. Images and outputs are float32 in either case. Models in bfloat16 run
            on CUDA; without a GPU they are proved by a twin in float32, and the proof says so.
        uint8_input: Take raw bytes, NHWC; casting, scaling, normalization and layout become part of the graph.
        sealed_weights: Encrypt all weights, 1 MiB at a time, under a key that licenses bring. Other tools then cannot
            even run the model locked.
        side_file: Put withheld weights into an encrypted file of the artifact, whose key licenses bring, instead of the
            licenses; ``auto``: if they are more than 8 MiB. Not with domains or fingerprints.
        fingerprint: Let each license move the withheld weights by a word of its own, so that a leaked model can be
            traced to the license it came from. Outputs then differ from the original's by less than a hundredth.
        name: The model's name; default: the directory's name without its suffix.
        opset: ONNX operator set; default: the exporter's.
        overwrite: Replace an existing artifact.

    Raises:
        LockError: If the module is opened, or the secret is that of another lock.
        ExportError: If the network cannot be exported or marked, or the place is taken.
        ProofError: If the artifact does not prove itself.
    """
    module.require_locked("export")
    target = Path(path)
    if target.exists() and not overwrite:
        raise ExportError(f"{target} exists already", hint="choose another name, or overwrite it on purpose")
    if not target.parent.is_dir():
        raise ExportError(f"the folder {target.parent} does not exist", hint="create it first")
    reference = _on_cpu(module.with_uint8_input() if uint8_input else module)
    if precision == "bfloat16":
        opset = require_opset(opset)
        reference, secret = rounded(reference, secret)
    model, values = locked_graph(reference, secret, precision, opset)
    names, varied = reference.withheld_names(), bool(secret.domains)
    aside = tensors_aside(values, names, side_file, domains=varied, marked=fingerprint)
    description = _describe(module, report)
    model.metadata_props[METADATA_KEY] = canonical_json(description).decode()
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        write_graph(model, folder, graph=GRAPH_NAME, weights=WEIGHTS_NAME, gate=GATE_NAME, gate_names=values)
        with provable(folder, reference.spec, values, precision) as shown:
            proof = shown.held(prove(shown.folder, reference, secret, values, precision, shown.rounding))
            marks, moved = {}, 0.0
            domains = domain_secrets(shown.folder, reference, secret, values, shown.rounding) if secret.domains else {}
            if fingerprint:
                chosen, moved = choose_fingerprint(shown.folder, reference, secret, values, proof.known_answer)
                marks = chosen.to_arrays()
        facts = _facts(name or target.name.removesuffix(".latch"), model, reference.spec, module.spec, precision)
        manifest = write_manifest(folder, facts, description, values, sealed=sealed_weights, aside=aside)
        keys = seal_files(folder, manifest, values)
        publish(folder, target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    carried = {name: value for name, value in values.items() if name not in aside}
    secret_values = {**carried, **proof.known_answer, **keys, **marks, **domains}
    model_id = model_id_of(manifest.serialize())
    return Exported(target, model_id, secret_values, replace(proof, fingerprint_change=moved))


def export_plain(
    model: nn.Module,
    spec: InputSpec,
    path: str | PathLike[str],
    *,
    precision: Precision = "float32",
    opset: int | None = None,
) -> Path:
    """Export a network without any lock, with the same exporter: the baseline for benchmarks.

    Args:
        model: In evaluation mode.
        spec: Its input convention.
        path: A directory to create; it gets model.onnx and model.onnx.data.
        precision: What the network computes in. Images and outputs are float32 in either case.
        opset: ONNX operator set.

    Returns:
        The path of model.onnx.

    Raises:
        ExportError: If the network cannot be exported or the directory exists.
    """
    target = Path(path)
    if target.exists():
        raise ExportError(f"{target} exists already", hint="choose another name")
    if precision == "bfloat16":
        model, opset = plain_in_bfloat16(model, spec), require_opset(opset)
    elif precision == "float16":
        model = InPrecision(model, precision)
    with torch.no_grad():
        example = model(torch.zeros((1, *spec.shape), dtype=spec.torch_dtype))
    count = sum(isinstance(leaf, torch.Tensor) for leaf in torch.utils._pytree.tree_leaves(example))
    names = ("output",) if count == 1 else tuple(f"output_{index}" for index in range(count))
    graph = to_onnx(model, spec, names, opset=opset)
    if precision == "bfloat16":
        use_bfloat16_kernels(graph)
    target.mkdir(parents=True)
    write_graph(graph, target, graph=GRAPH_NAME, weights=WEIGHTS_NAME, gate=GATE_NAME, gate_names=())
    (target / GATE_NAME).unlink()
    return target / GRAPH_NAME


def _on_cpu(module: LockedModule) -> LockedModule:
    return copy.deepcopy(module).cpu().float()


def _describe(module: LockedModule, report: LockReport | None) -> dict[str, Any]:
    description = module.describe()
    if report is not None:
        description["report"] = {
            "margin": report.margin,
            "multiply_adds": report.multiply_adds,
            "gated_parameters": report.gated_parameters,
            "parameters": report.parameters,
            "means": [layer.means for layer in report.layers],
        }
    return description


def _facts(name: str, model: ir.Model, spec: InputSpec, own: InputSpec, precision: Precision) -> dict[str, Any]:
    outputs = [
        {"name": value.name, "shape": [size if isinstance(size, int) else str(size) for size in value.shape or ()]}
        for value in model.graph.outputs
    ]
    return {
        "name": name,
        "precision": precision,
        "input": {"name": INPUT_NAME, "shape": ["batch", *spec.shape], **spec.to_json()},
        "normalization": {"mean": list(own.mean), "std": list(own.std)},
        "outputs": outputs,
    }


def describe_proof(proof: Proof) -> dict[str, float | str]:
    """The figures of a proof, without the known answer."""
    return {key: value for key, value in asdict(proof).items() if key != "known_answer"}
