"""Small weights set to zero."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from keylatch.audit._owner import Array
from keylatch.audit.survival._change import Changed, Subject
from keylatch.audit.survival._gate_nodes import gate_node_names, gates_note
from keylatch.audit.survival._memory_model import model_opener, read_model

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_CARRIERS = frozenset({"Identity", "Cast", "Transpose", "Reshape"})  # between an initializer and its layer
_LEAST_RANK = 2  # biases are not pruned


def pruned(subject: Subject, percent: int) -> Changed:
    """Set the smallest weights of each layer to zero; gate tensors and the gate's public maps are left alone."""
    target = subject.target
    model = read_model(target)
    names = weight_names(model, gate_node_names(model, target)) - set(target.gate_names)
    for tensor in model.graph.initializer:
        if tensor.name in names:
            value = without_smallest(onnx.numpy_helper.to_array(tensor), percent)
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    withheld = len(weight_names(model, frozenset()) & set(target.gate_names))
    note = f"{len(names)} weight tensors, each by magnitude" + (f"; {withheld} withheld ones kept" if withheld else "")
    note += gates_note(target)
    return Changed(model_opener(model, target.gate_names), note=note)


def weight_names(model: Any, gate_nodes: frozenset[str]) -> set[str]:
    """Floating point initializers of two or more dimensions that layers outside the gate take for weights."""
    wanted: set[str] = set()
    for node in reversed(model.graph.node):
        layer = node.op_type in _LAYERS and node.name not in gate_nodes
        if layer or (node.op_type in _CARRIERS and wanted.intersection(node.output)):
            wanted.update(node.input)
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    return {
        tensor.name
        for tensor in model.graph.initializer
        if tensor.name in wanted and tensor.data_type in floats and len(tensor.dims) >= _LEAST_RANK
    }


def without_smallest(weight: Array, percent: int) -> Array:
    """A copy whose smallest magnitudes are zero: `percent` of them, rounded down."""
    count = weight.size * percent // 100
    pruned: Array = np.array(weight)
    pruned.reshape(-1)[np.argsort(np.abs(weight), axis=None, kind="stable")[:count]] = 0
    return pruned
