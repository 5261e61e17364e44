"""What is in a bfloat16 graph, and its float32 twin in onnxruntime on a CPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from keylatch.exporters._float32_twin import write_twin

BFLOAT16 = onnx.TensorProto.BFLOAT16
# Computed in bfloat16 by the CUDA provider of onnxruntime-gpu 1.31.1 at opset 22; written out here, by hand.
ON_CUDA = frozenset((
    "Add", "Conv", "Div", "Gelu", "Gemm", "HardSwish", "LayerNormalization", "MatMul", "Max", "Min", "Mul",
    "ReduceMean", "Relu", "Softmax", "Sub", "Where",
))  # fmt: skip
ANYWHERE = frozenset((
    "Cast", "Concat", "Expand", "Gather", "Identity", "If", "Reshape", "ScatterElements", "ScatterND", "Shape", "Slice",
    "Split", "Transpose",
))  # fmt: skip

Node = tuple[onnx.NodeProto, list[int], bool]


def typed_nodes(path: Path) -> list[Node]:
    """All nodes, those of branches too, with the types that each takes and gives, and whether it takes constants alone.

    Types are inferred strictly: whatever does not agree raises.
    """
    model = onnx.load(path, load_external_data=False)
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    return list(_typed(inferred.graph, {}, frozenset()))


def _typed(graph: onnx.GraphProto, outside: Mapping[str, int], fixed: frozenset[str]) -> Iterator[Node]:
    types, constants = dict(outside), set(fixed)
    types |= {
        value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)
    }
    for tensor in graph.initializer:
        types[tensor.name] = tensor.data_type
        constants.add(tensor.name)
    for node in graph.node:
        folded = bool(node.input) and node.op_type != "If" and constants.issuperset(filter(None, node.input))
        if folded:
            constants.update(node.output)
        yield node, [types[name] for name in (*node.input, *node.output) if name], folded
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _typed(attribute.g, types, frozenset(constants))


def open_twin(
    folder: Path, place: Path, values: Mapping[str, np.ndarray], *, rounded: bool = False
) -> tuple[Any, Counter[str]]:
    """A session of the twin, and how often each operator is left in its optimized graph."""
    place.mkdir(parents=True)
    write_twin(folder, place, rounded=rounded)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns that an optimized graph fits this machine alone
    options.optimized_model_filepath = str(place / "optimized.onnx")
    if values:
        tensors = [onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value)) for value in values.values()]
        options.add_external_initializers(list(values), tensors)
    session = onnxruntime.InferenceSession(place / "model.onnx", options, providers=["CPUExecutionProvider"])
    graph = onnx.load(place / "optimized.onnx", load_external_data=False).graph
    return session, Counter(node.op_type for node in graph.node)
