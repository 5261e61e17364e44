"""Write a bfloat16 graph in operators that onnxruntime computes in bfloat16 on CUDA.

An operator without such a kernel is computed nowhere: onnxruntime puts no casts around bfloat16, and a session does not
open. So what has an equal in other operators is written in those, and the rest computes in float32 between casts. The
lists are the kernels of onnxruntime-gpu 1.31.1 at opset 22 (docs/decisions/0019); no GPU has run them here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from keylatch.errors import ExportError
from keylatch.exporters._gated_layers import constant_values
from keylatch.exporters._graph_builder import GraphBuilder, put_behind

ARITHMETIC = frozenset((
    "Abs", "Add", "AveragePool", "Conv", "Cos", "DeformConv", "Div", "Erf", "Exp", "Gelu", "Gemm", "HardSigmoid",
    "HardSwish", "IsInf", "IsNaN", "LayerNormalization", "LpNormalization", "MatMul", "Max", "Min", "Mul", "Neg",
    "ReduceMean", "ReduceSum", "Relu", "RoiAlign", "Sigmoid", "Sign", "Sin", "Softmax", "Softplus", "Softsign", "Sqrt",
    "Sub", "Sum", "Tanh",
))  # fmt: skip
# These copy values, of any type, on CPUs as well: what they make of constants is folded while a session opens.
MOVES = frozenset((
    "Cast", "Concat", "Constant", "ConstantOfShape", "Expand", "Flatten", "Gather", "GatherElements", "GatherND",
    "Identity", "If", "Reshape", "ScatterElements", "ScatterND", "Shape", "Size", "Slice", "Split", "Squeeze",
    "Transpose", "Unsqueeze",
))  # fmt: skip
_ON_GPU_ALONE = frozenset(("Tile", "Trilu", "Where"))

_BFLOAT16, _FLOAT = ir.DataType.BFLOAT16, ir.DataType.FLOAT


def use_bfloat16_kernels(model: ir.Model) -> None:
    """Rewrite a graph in place; what it computes stays the same, but for rounding.

    Args:
        model: Types between its nodes are found out.

    Raises:
        ExportError: If they cannot be.
    """
    ShapeInferencePass()(model)
    found = list(everywhere(model.graph))
    untyped = next((node for _, node in found if any(value.dtype is None for value in node.outputs)), None)
    if untyped is not None:
        raise ExportError(
            f"the type of what {untyped.name} gives is not known, a node of {untyped.op_type}",
            hint="export in float16, and report this network",
        )
    builder = GraphBuilder(model.graph, "bridged")
    constants = constant_values(model.graph)
    for graph, node in found:
        if not any(_is_bfloat16(value) for value in (*node.inputs, *node.outputs)) or node.op_type in MOVES:
            continue
        if all(value is None or value in constants for value in node.inputs):
            _bridge(builder, graph, node)  # folded on the CPU, which has no bfloat16
        elif node.op_type not in ARITHMETIC | _ON_GPU_ALONE:
            _write_otherwise(builder, graph, node)


def everywhere(graph: ir.Graph) -> Iterator[tuple[ir.Graph, ir.Node]]:
    """All nodes, those of branches too, each with the graph that it stands in."""
    for node in graph:
        yield graph, node
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                yield from everywhere(attribute.as_graph())


def _is_bfloat16(value: ir.Value | None) -> bool:
    return value is not None and value.dtype == _BFLOAT16


def _bridge(builder: GraphBuilder, graph: ir.Graph, node: ir.Node) -> None:
    """Compute a node in float32, between casts."""
    for index, value in enumerate(node.inputs):
        if value is not None and _is_bfloat16(value):
            wide = _cast(builder, value, _FLOAT)
            graph.insert_before(node, wide)
            node.replace_input_with(index, wide.outputs[0])
    for value in node.outputs:
        if _is_bfloat16(value):
            put_behind(graph, value, [_cast(builder, value, _BFLOAT16)])
            value.type = ir.TensorType(_FLOAT)


def _cast(builder: GraphBuilder, value: ir.Value, dtype: ir.DataType) -> ir.Node:
    node = builder.make("Cast", value, to=int(dtype))
    node.outputs[0].type, node.outputs[0].shape = ir.TensorType(dtype), value.shape
    return node


def _write_otherwise(builder: GraphBuilder, graph: ir.Graph, node: ir.Node) -> None:
    """Replace a node by an equal of other operators, or else compute it in float32."""
    nodes: list[ir.Node] = []
    if node.op_type in _EQUALS:
        nodes = _EQUALS[node.op_type](builder, node)
    if not nodes:
        _bridge(builder, graph, node)
        return
    put_behind(graph, node.outputs[0], nodes)
    graph.remove(node, safe=True)


def _clip(builder: GraphBuilder, node: ir.Node) -> list[ir.Node]:
    nodes: list[ir.Node] = []
    last = node.inputs[0]
    for op, bound in zip(("Max", "Min"), node.inputs[1:], strict=False):
        if bound is not None and last is not None:
            nodes.append(builder.make(op, last, bound))
            last = nodes[-1].outputs[0]
            last.type, last.shape = node.outputs[0].type, node.outputs[0].shape
    return nodes


def _max_pool(builder: GraphBuilder, node: ir.Node) -> list[ir.Node]:
    """Along each axis the largest of a window's entries; none for dilated windows and unknown sizes.

    An entry in the padding is replaced by the nearest one in the image, which its window holds too: pads are smaller
    than windows.
    """
    source, output = node.inputs[0], node.outputs[0]
    sizes, results = (_spatial(value) for value in (source, output))
    automatic = node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET"
    if source is None or not sizes or not results or len(node.outputs) > 1 or automatic:
        return []
    windows = node.attributes.get_ints("kernel_shape")
    strides = node.attributes.get_ints("strides", [1] * len(sizes))
    pads = node.attributes.get_ints("pads", [0] * 2 * len(sizes))
    if (
        windows is None
        or strides is None
        or pads is None
        or set(node.attributes.get_ints("dilations", [1]) or ()) != {1}
    ):
        return []
    nodes: list[ir.Node] = []
    for axis, size in enumerate(sizes):
        starts = np.arange(results[axis]) * strides[axis] - pads[axis]
        places = [np.clip(starts + step, 0, size - 1) for step in range(windows[axis])]
        taken = [builder.make("Gather", source, builder.constant(list(place)), axis=axis + 2) for place in places]
        largest = builder.make("Max", *(gather.outputs[0] for gather in taken))
        for made in (*taken, largest):
            made.outputs[0].type = ir.TensorType(_BFLOAT16)
        nodes += [*taken, largest]
        source = largest.outputs[0]
    return nodes


def _spatial(value: ir.Value | None) -> list[int] | None:
    """Sizes behind batch and channels, if all are known."""
    sizes: Sequence[Any] = () if value is None or value.shape is None else value.shape[2:]
    return [size for size in sizes if isinstance(size, int)] if all(isinstance(s, int) for s in sizes) else None


_EQUALS = {"Clip": _clip, "MaxPool": _max_pool}
