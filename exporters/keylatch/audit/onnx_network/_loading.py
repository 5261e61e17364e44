"""From ONNX files and protobufs to a network."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import inliner

from keylatch.audit.onnx_network._branches import taken_branches
from keylatch.audit.onnx_network._external_data import TensorReader, tensor_reader
from keylatch.audit.onnx_network._graph import Graph, live_nodes
from keylatch.audit.onnx_network._network import OnnxNetwork
from keylatch.audit.onnx_network._nodes import constant_tensor, parse_node
from keylatch.audit.onnx_network._quantization import dequantize_constants
from keylatch.errors import ArtifactError, InputError
from keylatch.runtime import scan_graph

_CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})
_MAX_GRAPH_BYTES = 2**31  # protobuf's own limit
_HINT = "name a model.onnx file, e.g. resnet50.latch/model.onnx"


def load_onnx_network(path: Path, *, frozen: Collection[str] = ()) -> OnnxNetwork:
    """Load a model, with its external data, as a trainable module.

    Args:
        path: The model.onnx; external data is read from the same folder, from plain files only.
        frozen: Initializers that become buffers rather than parameters, e.g. the gate tensors.

    Raises:
        ArtifactError: If the file is missing or no ONNX model, or its external data is missing or elsewhere.
        InputError: If the model has another number of image inputs than one, or operators that cannot be converted.
    """
    path = Path(path)
    return _network(load_model(path), path.parent, frozen)


def load_model(path: Path) -> Any:
    """Read a model's protobuf; external data stays where it is.

    Raises:
        ArtifactError: If the file is missing or no ONNX model.
    """
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= _MAX_GRAPH_BYTES else b""
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a file name"
        raise ArtifactError(f"the model {path} cannot be read: {reason}", hint=_HINT) from None
    return _parse(data, path)


def onnx_network(model: onnx.ModelProto, *, frozen: Collection[str] = ()) -> OnnxNetwork:
    """Make a trainable module of a model in memory.

    Args:
        model: All its tensors inside.
        frozen: As in `load_onnx_network`.

    Raises:
        ArtifactError: If it refers to external data.
        InputError: If it has another number of image inputs than one, or operators that cannot be converted.
    """
    return _network(model, None, frozen)


def _parse(data: bytes, path: Path) -> Any:
    refused = ArtifactError(f"{path} is no ONNX model", hint=_HINT)
    try:
        facts = scan_graph(data)
        model = onnx.load_model_from_string(data)
    except ArtifactError:
        raise refused from None
    except Exception as error:
        if type(error).__name__ != "DecodeError":  # protobuf's; where it is imported from differs between versions
            raise
        raise refused from None
    if facts.sparse_external or not model.opset_import or not model.graph.output:
        raise refused
    return model


def _network(model: Any, folder: Path | None, frozen: Collection[str]) -> OnnxNetwork:
    if model.functions:
        model = inliner.inline_local_functions(model)
    if model.graph.sparse_initializer:
        raise InputError("the model has sparse initializers, which cannot be trained", hint="export it with dense ones")
    return OnnxNetwork(_graph(model, tensor_reader(folder), frozen), frozen=frozen)


def _graph(model: Any, read: TensorReader, frozen: Collection[str]) -> Graph:
    proto = model.graph
    versions = [entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}]
    opset = max(versions, default=1)
    taken, initializers = taken_branches(proto, read, opset)
    _refuse_control_flow(taken)
    _require_sorted(taken, [value.name for value in (*proto.input, *initializers)])
    outputs = tuple(value.name for value in proto.output)
    nodes = live_nodes([parse_node(node, read) for node in taken], outputs)
    needed = {name for node in nodes for name in node.inputs} | set(outputs)
    kept = needed.union(frozen)  # who names a tensor wants it, though no output may need it
    tensors = {tensor.name: read(tensor) for tensor in initializers if tensor.name in kept}
    constants = {node.outputs[0]: constant_tensor(node) for node in nodes if node.op == "Constant"}
    computed = tuple(node for node in nodes if node.op != "Constant")
    computed, known = dequantize_constants(computed, {**tensors, **constants}, opset)
    return Graph(computed, _image(proto, needed), outputs, known, opset)


def _require_sorted(nodes: Sequence[Any], given: Sequence[str]) -> None:
    """Refuse a file whose nodes do not stand, as the standard has it, after those they read from."""
    known = {*given, ""}
    for node in nodes:
        unknown = [name for name in node.input if name not in known]
        if unknown:
            raise ArtifactError(
                f"the graph's node {node.name or node.op_type} reads {unknown[0]!r:.60} before anything gives it",
                hint="check the model with onnx.checker.check_model",
            )
        known.update(node.output)


def _image(proto: Any, needed: Collection[str]) -> str:
    tensors = {tensor.name for tensor in proto.initializer}  # old files list these among the inputs
    inputs = [value.name for value in proto.input if value.name not in tensors]
    used = [name for name in inputs if name in needed]
    if len(used) != 1:
        names = ", ".join(used) or "none"
        raise InputError(
            f"the model has {len(used)} inputs that its outputs need ({names:.100}), expected one: the image",
            hint="export the network with its other inputs fixed",
        )
    return str(used[0])


def _refuse_control_flow(nodes: Sequence[Any]) -> None:
    for node in nodes:
        if node.op_type in _CONTROL_FLOW and node.domain in {"", "ai.onnx"}:
            raise InputError(
                f"cannot convert operator {node.op_type} of node {node.name or node.output[0]} to PyTorch: "
                "what is computed would depend on the image",
                hint="export the network with fixed shapes and without loops or branches on the image",
            )
