"""Show a bfloat16 graph to an onnxruntime that cannot compute in bfloat16: the same graph and constants in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from keylatch.exporters._bfloat16_operators import MOVES, everywhere
from keylatch.exporters._graph_builder import GraphBuilder, put_behind
from keylatch.exporters._layout import write_graph
from keylatch.runtime import GATE_NAME, GRAPH_NAME, WEIGHTS_NAME

_BFLOAT16, _FLOAT = ir.DataType.BFLOAT16, ir.DataType.FLOAT


def write_twin(folder: Path, target: Path, *, rounded: bool) -> None:
    """Write a model again with float32 in the place of bfloat16.

    Args:
        folder: Where model.onnx, its weights and gate.bin lie.
        target: An empty directory, for files of the same names.
        rounded: Round what every operator gives to bfloat16, as a device does that computes in it and sums in float32;
            otherwise nothing is rounded but the weights, which are so already.
    """
    model = ir.load(folder / GRAPH_NAME)
    found = list(everywhere(model.graph))
    narrow = {value for _, node in found for value in node.outputs if value.dtype == _BFLOAT16}
    gate = {name for name, value in model.graph.initializers.items() if _lies_in(value, GATE_NAME)}
    builder = GraphBuilder(model.graph, "rounded")
    for value in model.graph.initializers.values():
        _widen(value)
    for graph, node in found:
        _widen_attributes(node)
        for value in [value for value in node.outputs if value in narrow]:
            value.type = ir.TensorType(_FLOAT)
            if rounded and (node.op_type == "Cast" or node.op_type not in MOVES):
                _round(builder, graph, value)
    write_graph(model, target, graph=GRAPH_NAME, weights=WEIGHTS_NAME, gate=GATE_NAME, gate_names=gate)


def _lies_in(value: ir.Value, name: str) -> bool:
    return isinstance(value.const_value, ir.ExternalTensor) and value.const_value.location == name


def _widen(value: ir.Value) -> None:
    tensor = value.const_value
    if tensor is not None and tensor.dtype == _BFLOAT16:
        value.const_value = ir.tensor(tensor.numpy().astype(np.float32), name=value.name)
        value.type = ir.TensorType(_FLOAT)


def _widen_attributes(node: ir.Node) -> None:
    for name, attribute in list(node.attributes.items()):
        if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype == _BFLOAT16:
            node.attributes[name] = ir.AttrTensor(name, ir.tensor(attribute.as_tensor().numpy().astype(np.float32)))
        elif node.op_type == "Cast" and name == "to" and attribute.as_int() == int(_BFLOAT16):
            node.attributes[name] = ir.AttrInt64(name, int(_FLOAT))


def _round(builder: GraphBuilder, graph: ir.Graph, value: ir.Value) -> None:
    down = builder.make("Cast", value, to=int(_BFLOAT16))
    up = builder.make("Cast", down.outputs[0], to=int(_FLOAT))
    up.outputs[0].type = value.type
    put_behind(graph, value, [down, up])
