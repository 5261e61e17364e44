"""A graph in memory, opened in stock onnxruntime with gate values that are not in it.

Changed graphs hold the locked defaults. Secret values go to the session alone (`add_external_initializers`), so nothing
that could be written down, here or by onnxruntime's tools, has them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.capi import onnxruntime_pybind11_state as states

from keylatch.audit._attack import Predict
from keylatch.audit._owner import Array
from keylatch.audit._target import Target
from keylatch.audit.onnx_network import without_branches
from keylatch.audit.survival._change import Unable, Values
from keylatch.runtime import GRAPH_NAME

# What onnxruntime says to a graph that it has no operators for, or whose types it cannot follow.
REFUSALS = (states.NotImplemented, states.InvalidGraph, states.Fail)
_LARGEST_BYTES = 2**31 - 1  # protobuf's limit for a message
_BATCH = 25
_SILENT = 4
_NOWHERE = "gate"  # the name of a file that does not exist: whatever is not supplied cannot be read


def read_model(target: Target) -> Any:
    """The artifact's graph with all tensors in it, locked defaults included, its types inferred.

    Branches on gate tensors are taken as the locked defaults have it, as onnxruntime does when it preprocesses the file
    (it saves the same graph): gates stand there as they are in force, which is right with every key, and costs time.

    Raises:
        Unable: If it is too large for one message.
    """
    if sum(file.size_bytes for file in target.manifest.files.values()) > _LARGEST_BYTES:
        raise Unable("the model is larger than 2 GiB, too large to be changed in memory")
    model = without_branches(onnx.load(target.path / GRAPH_NAME))
    for node in model.graph.node:
        node.name = node.name or node.output[0]
    # The exporter's own annotations name tensors that quantizers rewrite; inferred ones are what they expect.
    del model.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(model)


def model_opener(model: Any, gate_names: Collection[str]) -> _Opener:
    """Prepare a graph to be opened with gate values.

    Raises:
        Unable: If a gate tensor is not in it any more.
    """
    kept = onnx.ModelProto()
    kept.CopyFrom(model)
    defaults = {}
    for tensor in kept.graph.initializer:
        if tensor.name in gate_names:
            defaults[tensor.name] = onnx.numpy_helper.to_array(tensor)
            _move_out(tensor)
    lost = sorted(set(gate_names) - set(defaults))
    if lost:
        raise Unable(f"the change does not leave the gate tensor {lost[0]} as it was, so that no license fits")
    return _Opener(kept.SerializeToString(), defaults)


class _Opener:
    """Opens a graph whose gate tensors are supplied.

    Args:
        graph: Its gate tensors are external data that is nowhere.
        defaults: Locked defaults, in the changed graph's dtypes.
    """

    __slots__ = ("_defaults", "graph")

    def __init__(self, graph: bytes, defaults: Mapping[str, Array]) -> None:
        self.graph, self._defaults = graph, defaults

    def __call__(self, values: Values) -> Predict:
        """Raises `Unable` if onnxruntime refuses the graph."""
        return session_predict(self.session(values))

    def session(self, values: Values) -> Any:
        """A session with the locked defaults, or with values in their place."""
        given = {name: values.get(name, default).astype(default.dtype) for name, default in self._defaults.items()}
        return open_session(self.graph, given)


def open_session(graph: bytes | str, values: Values, level: Any = None) -> Any:
    """Open a graph in stock onnxruntime, with some initializers overridden.

    Args:
        graph: The graph, or its path.
        values: Initializer name to value.
        level: An optimization level; None for onnxruntime's default, which is all.

    Raises:
        Unable: If onnxruntime refuses the graph.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    if level is not None:
        options.graph_optimization_level = level
    if values:
        tensors = [onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value)) for value in values.values()]
        options.add_external_initializers(list(values), tensors)
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except REFUSALS as refusal:
        raise Unable(f"onnxruntime refuses the changed model: {first_line(refusal)}") from refusal


def session_predict(session: Any) -> Predict:
    """A session as a function from images to the first output."""
    name, output = session.get_inputs()[0].name, session.get_outputs()[0].name

    def predict(images: torch.Tensor) -> torch.Tensor:
        parts = [session.run([output], {name: part.numpy()})[0] for part in torch.split(images.contiguous(), _BATCH)]
        return torch.from_numpy(np.concatenate(parts))

    return predict


def first_line(error: Exception) -> str:
    """What an error of a library says first."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _move_out(tensor: Any) -> None:
    """Make an initializer external: onnxruntime replaces no others."""
    for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
        tensor.ClearField(field)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", _NOWHERE
