"""What a gate looks like in an exported graph: how its signs are read, and the layer behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

_LAYERS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True, slots=True)
class Gated:
    """A gated layer in the graph.

    Attributes:
        signs: The layer's gate signs, shaped to multiply its input.
        nodes: Padding, centering, signs, layer and bias, in order; those that are there.
        data: What enters them.
        mean: The gate tensor that centers.
        layer: The convolution or product.
        bias: The constant that is added.
        output: What they give.
    """

    signs: ir.Value
    nodes: tuple[ir.Node, ...]
    data: ir.Value
    mean: ir.Value
    layer: ir.Node
    bias: ir.Value
    output: ir.Value


def constant_values(graph: ir.Graph) -> set[ir.Value]:
    """Initializers, and what follows from them alone; not what an If gives, whose branches read other values."""
    constants = set(graph.initializers.values())
    for node in graph:
        if node.inputs and node.op_type != "If" and all(value is None or value in constants for value in node.inputs):
            constants.update(node.outputs)
    return constants


def following(graph: ir.Graph, select: ir.Node, constants: set[ir.Value]) -> list[ir.Node]:
    """The nodes that follow from the selected corner and constants: they read it."""
    values, nodes = set(select.outputs), []
    for node in graph:
        inputs = [value for value in node.inputs if value is not None and value not in constants]
        if inputs and set(inputs) <= values:
            values.update(node.outputs)
            nodes.append(node)
    return nodes


def only_for(select: ir.Node, users: set[ir.Node]) -> list[ir.Node]:
    """The nodes in front of the selection that serve nothing else, in order."""
    found: list[ir.Node] = []
    value = select.inputs[2]
    while value is not None and value.producer() is not None and set(value.consumers()) <= users:
        node = value.producer()
        assert node is not None  # noqa: S101  the loop's condition
        found.insert(0, node)
        users = {*users, node}
        value = node.inputs[0]
    return found


def leaving(nodes: Sequence[ir.Node]) -> list[ir.Value]:
    """The values of some nodes that others use."""
    inside = set(nodes)
    return [value for node in nodes for value in node.outputs if set(value.consumers()) - inside]


def gated_by(signs: ir.Value, constants: set[ir.Value]) -> Gated | None:
    """The layer behind a gate; None if it does not look like one."""
    gate = _single(signs.consumers())
    if gate is None or gate.op_type != "Mul" or gate.inputs[1] is not signs or gate.inputs[0] is None:
        return None
    center = gate.inputs[0].producer()
    layer = _single(gate.outputs[0].consumers())
    if center is None or center.op_type != "Sub" or layer is None or layer.op_type not in _LAYERS:
        return None
    data, mean = center.inputs
    weight = layer.inputs[1]
    if layer.inputs[0] is not gate.outputs[0] or mean not in constants or weight not in constants:
        return None
    assert data is not None and mean is not None  # noqa: S101  a Sub has two inputs
    bias, last = (layer.inputs[2], layer) if len(layer.inputs) > 2 else _added(layer, constants)
    if bias is None or not _is_simple(layer):
        return None
    nodes: tuple[ir.Node, ...] = (center, gate, *dict.fromkeys((layer, last)))
    pad = data.producer()
    if layer.op_type == "Conv" and pad is not None and spatial_pads(pad) and _single(data.consumers()) is center:
        assert pad.inputs[0] is not None  # noqa: S101
        nodes, data = (pad, *nodes), pad.inputs[0]
    return Gated(signs, nodes, data, mean, layer, bias, last.outputs[0])


def _single(nodes: Sequence[ir.Node]) -> ir.Node | None:
    return nodes[0] if len(nodes) == 1 else None


def _added(layer: ir.Node, constants: set[ir.Value]) -> tuple[ir.Value | None, ir.Node]:
    """The constant that is added to a product, and the node that adds it."""
    following = _single(layer.outputs[0].consumers())
    if following is None or following.op_type != "Add":
        return None, layer
    others = [value for value in following.inputs if value is not layer.outputs[0]]
    found = others[0] if len(others) == 1 and others[0] in constants else None
    return found, following


def _is_simple(layer: ir.Node) -> bool:
    if layer.op_type == "Gemm":
        return layer.attributes.get_float("alpha", 1.0) == layer.attributes.get_float("beta", 1.0) == 1.0 and not (
            layer.attributes.get_int("transA", 0)
        )
    return layer.op_type == "MatMul" or layer.attributes.get_int("group", 1) == 1


def spatial_pads(node: ir.Node) -> list[int] | None:
    """Pads of a Conv, (rows, columns) before and after, in the place of a Pad on (N, C, H, W).

    None if the node is something else: networks also pad by reflection or with other numbers, and crop.
    """
    if node.op_type != "Pad" or node.attributes.get_string("mode", "constant") != "constant":
        return None
    sizes = _numbers(node.inputs[1])
    filler = [0] if len(node.inputs) < 3 or node.inputs[2] is None else _numbers(node.inputs[2])
    if sizes is None or len(sizes) != 8 or min(sizes) < 0 or any((*sizes[:2], *sizes[4:6])) or len(node.inputs) > 3:
        return None
    return [*sizes[2:4], *sizes[6:]] if filler == [0] else None


def _numbers(value: ir.Value | None) -> list[int] | None:
    """What a constant holds, flat."""
    tensor = None if value is None else value.const_value
    return None if tensor is None else tensor.numpy().flatten().tolist()
