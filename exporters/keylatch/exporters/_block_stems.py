"""Let a layer that reads whole blocks do a block transform: in its weights, which are transformed back."""

from __future__ import annotations

import onnx_ir as ir

from keylatch.exporters._graph_builder import GraphBuilder, inverse_permutation


def block_reader(shown: ir.Value, block_size: int) -> ir.Node | None:
    """The convolution that alone reads a value, whole blocks at a time; None if there is none."""
    users = shown.consumers()
    while len(users) == 1 and users[0].op_type == "Cast":
        users = users[0].outputs[0].consumers()
    layer = users[0] if len(users) == 1 else None
    weight = None if layer is None or layer.op_type != "Conv" else layer.inputs[1]
    if layer is None or weight is None or weight.shape is None or not _reads_blocks(layer, weight, block_size):
        return None
    return layer


def fold_into(
    layer: ir.Node,
    builder: GraphBuilder,
    image: ir.Value,
    block_size: int,
    permutation: ir.Value,
    scale: ir.Value,
    offset: ir.Value,
) -> None:
    """Let a layer read an image itself, with its weights transformed back.

    Args:
        layer: Of `block_reader`.
        builder: Of the graph.
        image: (N, C, H, W), before the transform.
        block_size: M.
        permutation: (p,) int64.
        scale: (p, 1, 1) float32.
        offset: (p, 1, 1) float32.
    """
    weight = layer.inputs[1]
    assert weight is not None  # noqa: S101  a Conv has a weight
    kind = weight.dtype or ir.DataType.FLOAT
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


def _reads_blocks(layer: ir.Node, weight: ir.Value, block_size: int) -> bool:
    kernel = [int(str(side)) for side in list(weight.shape or ())[2:]]
    strides = list(layer.attributes.get_ints("strides", [1, 1]))
    pads, dilations = layer.attributes.get_ints("pads", [0]), layer.attributes.get_ints("dilations", [1])
    plain = not any(pads) and set(dilations) == {1} and layer.attributes.get_int("group", 1) == 1
    automatic = layer.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    return plain and not automatic and kernel == strides and not any(side % block_size for side in kernel)


def _as_float(builder: GraphBuilder, value: ir.Value) -> ir.Value:
    return value if value.dtype == ir.DataType.FLOAT else builder.add("Cast", value, to=int(ir.DataType.FLOAT))
