"""Give an exported block gate the form that costs least.

As exported, a block transform is two transposes of six axes (1 ms for one image of 224 x 224, batch 8: 9 ms). As
SpaceToDepth and DepthToSpace it takes 0.16 and 2.2 ms. Where the next layer reads whole blocks, the transform moves
into that layer's weights, which onnxruntime computes while opening, and costs nothing (docs/decisions/0013).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from keylatch.exporters._block_tables import bytes_of, tabulate
from keylatch.exporters._graph_builder import GraphBuilder, drop_unread, inverse_permutation
from keylatch.locks import BlockDescription, InputSpec

PERMUTATION = "blocks.permutation"
_SCALE, _OFFSET, _CHOICE = "blocks.scale", "blocks.offset", "blocks.choice"
_ANCHORS = (_SCALE, "blocks.inversion", _CHOICE)
_TO_PLANES, _TO_IMAGE = [0, 3, 5, 1, 2, 4], [0, 3, 4, 1, 5, 2]
_BETWEEN = frozenset({"Add", "Cast", "Gather", "Squeeze", "Sub", "Div"})  # what a gate does to planes


def rewrite_block_gate(
    model: ir.Model, description: BlockDescription, source: InputSpec, defaults: Mapping[str, Any]
) -> bool:
    """Rewrite the block gate of an exported model in place.

    Args:
        model: As `to_onnx` gives it.
        description: Of the transform.
        source: The input convention.
        defaults: Locked defaults by gate tensor name; the exporter folds the permutation's away.

    Returns:
        Whether the transform moved into the weights of the layer behind it.
    """
    graph, builder = model.graph, GraphBuilder(model.graph, "blocks")
    anchor = next(graph.initializers[name] for name in _ANCHORS if name in graph.initializers)
    middle = anchor.consumers()[0]
    gather = _gather_before(middle)
    gather.replace_input_with(1, builder.initializer(np.asarray(defaults[PERMUTATION]), PERMUTATION))
    opening = _reshaped_by(gather.inputs[0], _TO_PLANES)
    closing = _reshaped_by(_planes_end(middle), _TO_IMAGE)
    image, end = (nodes[0].inputs[0] for nodes in (opening, closing))
    assert image is not None and end is not None  # noqa: S101  a Reshape has an input
    block_size, looked_up = description.block_size, _CHOICE in graph.initializers
    pixels = bytes_of(builder, source, image) if looked_up else image
    planes = builder.add("SpaceToDepth", pixels, blocksize=block_size)
    gather.replace_input_with(0, planes)
    gather.outputs[0].type = pixels.type
    if looked_up:
        end = tabulate(builder, gather.outputs[0], middle, end)
    back = builder.make("DepthToSpace", end, blocksize=block_size)
    back.attributes["mode"] = ir.AttrString("mode", "DCR")
    graph.append(back)
    old, new = closing[2].outputs[0], back.outputs[0]
    new.type, new.shape, planes.type = old.type, old.shape, pixels.type
    ir.convenience.replace_all_uses_with(old, new)
    graph.remove([*closing, *opening], safe=True)
    drop_unread(graph, image)
    folded = _SCALE in graph.initializers and _fold_into_layer(builder, image, new, block_size)
    graph.sort()
    return folded


def _gather_before(node: ir.Node) -> ir.Node:
    """The Gather that moves planes, in front of the gate's arithmetic."""
    found = node.inputs[0].producer() if node.inputs[0] is not None else None
    while found is not None and found.op_type == "Cast" and found.inputs[0] is not None:
        found = found.inputs[0].producer()
    if found is None or found.op_type != "Gather":
        raise ValueError("the graph has no block gate where one was exported")
    return found


def _planes_end(node: ir.Node) -> ir.Value:
    """What the gate's arithmetic gives."""
    users = node.outputs[0].consumers()
    while len(users) == 1 and users[0].op_type in _BETWEEN:
        node = users[0]
        users = node.outputs[0].consumers()
    return users[0].outputs[0].consumers()[0].outputs[0].consumers()[0].outputs[0]


def _reshaped_by(value: ir.Value | None, axes: list[int]) -> tuple[ir.Node, ir.Node, ir.Node]:
    """Reshape, Transpose, Reshape that give a value, in this order."""
    last = None if value is None else value.producer()
    moved = None if last is None or last.inputs[0] is None else last.inputs[0].producer()
    first = None if moved is None or moved.inputs[0] is None else moved.inputs[0].producer()
    if last is None or moved is None or first is None or moved.op_type != "Transpose":
        raise ValueError("the graph has no block gate where one was exported")
    if list(moved.attributes.get_ints("perm")) != axes or {first.op_type, last.op_type} != {"Reshape"}:
        raise ValueError("the block gate was exported in another form")
    return first, moved, last


def _fold_into_layer(builder: GraphBuilder, image: ir.Value, shown: ir.Value, block_size: int) -> bool:
    """Let a layer that reads whole blocks read the image itself, with its weights transformed back."""
    users = shown.consumers()
    while len(users) == 1 and users[0].op_type == "Cast":
        users = users[0].outputs[0].consumers()
    layer = users[0] if len(users) == 1 else None
    weight = None if layer is None or layer.op_type != "Conv" else layer.inputs[1]
    if layer is None or weight is None or weight.shape is None or not _reads_blocks(layer, weight, block_size):
        return False
    kind = weight.dtype or ir.DataType.FLOAT
    scale, offset, permutation = (builder.graph.initializers[name] for name in (_SCALE, _OFFSET, PERMUTATION))
    scaled = builder.add("SpaceToDepth", _as_float(builder, weight), blocksize=block_size)
    shift = builder.add("Mul", scaled, offset)
    moved = builder.add("Gather", builder.add("Mul", scaled, scale), inverse_permutation(builder, permutation), axis=1)
    plain = builder.add("DepthToSpace", moved, blocksize=block_size)
    bias = builder.add("ReduceSum", shift, builder.constant([1, 2, 3]), keepdims=0)
    if len(layer.inputs) > 2 and layer.inputs[2] is not None:
        bias = builder.add("Add", bias, _as_float(builder, layer.inputs[2]))
    layer.replace_input_with(0, image if kind == ir.DataType.FLOAT else builder.add("Cast", image, to=int(kind)))
    layer.resize_inputs(3)
    for place, value in ((1, plain), (2, bias)):
        value.type = ir.TensorType(ir.DataType.FLOAT)
        layer.replace_input_with(
            place, value if kind == ir.DataType.FLOAT else builder.add("Cast", value, to=int(kind))
        )
    drop_unread(builder.graph, shown)
    return True


def _reads_blocks(layer: ir.Node, weight: ir.Value, block_size: int) -> bool:
    kernel = [int(str(side)) for side in list(weight.shape or ())[2:]]
    strides = list(layer.attributes.get_ints("strides", [1, 1]))
    pads, dilations = layer.attributes.get_ints("pads", [0]), layer.attributes.get_ints("dilations", [1])
    plain = not any(pads) and set(dilations) == {1} and layer.attributes.get_int("group", 1) == 1
    automatic = layer.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    return plain and not automatic and kernel == strides and not any(side % block_size for side in kernel)


def _as_float(builder: GraphBuilder, value: ir.Value) -> ir.Value:
    return value if value.dtype == ir.DataType.FLOAT else builder.add("Cast", value, to=int(ir.DataType.FLOAT))
