"""Give an opened model its layers back: gates become branches that onnxruntime folds away when it opens the model.

A gate as PyTorch runs it costs a pass over the layer's input, for every image: W' (g (a - mu)) + b'. Where the mask
covers the patch, g follows from gate tensors alone, and the layer is W'' a + b'' with W'' = W' diag(g) and
b'' = b' - W'' mu, constants. Both forms go into the graph, as the two branches of an `If` on the mask:

    open    = the mask covers the patch                        from gate tensors: folded while opening
    signs   = If(open) {from the patch} else {from the patch where the mask is set, from the image elsewhere}
    layer   = If(open) {W'' a + b''} else {the gate as it was}

onnxruntime evaluates what follows from initializers, takes the branch, and what is left is the original network: a
keyed session runs the same nodes as a plain one (docs/decisions/0012). Without optimization, or in another runtime,
the branches are decided for each run, with the same outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from keylatch.exporters._gated_layers import (
    Gated,
    constant_values,
    following,
    gated_by,
    leaving,
    only_for,
    spatial_pads,
)
from keylatch.exporters._graph_builder import GraphBuilder


def add_opened_branches(model: ir.Model, *, mask: str, patch: str) -> int:
    """Rewrite the gates of an exported code lock in place.

    Args:
        model: As `to_onnx` gives it.
        mask: Name of the gate tensor that says where the patch counts.
        patch: Name of the gate tensor that holds it.

    Returns:
        How many layers fold. A gate whose surroundings are not those of a gate stays as it is: it works, and costs.
    """
    graph = model.graph
    mask_value, patch_value = graph.initializers[mask], graph.initializers[patch]
    select = next(node for node in mask_value.consumers() if node.op_type == "Where" and node.inputs[1] is patch_value)
    constants = constant_values(graph)
    reading = following(graph, select, constants)
    corner = only_for(select, {select, *reading})
    signs = leaving(reading)
    builder = GraphBuilder(graph)
    is_open = _is_open(builder, mask_value)
    opened = builder.copied(reading, {select.outputs[0]: patch_value})
    inner = _branch(builder, "opened_signs", [opened[value] for value in signs])
    chosen = builder.choose(is_open, inner, [*corner, select, *reading], signs, free_batch=True)
    _separate_paddings(builder)
    count = 0
    for before, after in zip(signs, chosen, strict=True):
        gated = gated_by(after, constants)
        if gated is not None:
            _fold(builder, is_open, gated, opened[before])
            count += 1
    graph.sort()
    return count


def _is_open(builder: GraphBuilder, mask: ir.Value) -> ir.Value:
    # Through a cast: onnxruntime finds the condition of an If only where folding has put it, not in a file.
    covered = builder.add("ReduceMin", builder.add("Cast", mask, to=int(ir.DataType.FLOAT)), keepdims=0)
    return builder.add("Cast", covered, to=int(ir.DataType.BOOL))


def _branch(builder: GraphBuilder, name: str, values: Sequence[ir.Value]) -> ir.Graph:
    """A branch that gives values of the graph around it."""
    nodes = [builder.make("Identity", value) for value in values]
    return ir.Graph([], [node.outputs[0] for node in nodes], nodes=nodes, name=name)


def _separate_paddings(builder: GraphBuilder) -> None:
    """Give each gate a Pad of its own: exporters merge equal ones, and one that two gates share would stay."""
    for pad in [node for node in builder.graph if node.op_type == "Pad"]:
        for user in pad.outputs[0].consumers()[1:]:
            if user.op_type == "Sub":
                user.replace_input_with(0, builder.copied([pad], {})[pad.outputs[0]])


def _fold(builder: GraphBuilder, is_open: ir.Value, gated: Gated, signs: ir.Value) -> None:
    layer = gated.layer
    weight, bias = layer.inputs[1], gated.bias
    assert weight is not None  # noqa: S101  `gated_by` looked at it
    dtype = weight.dtype or ir.DataType.FLOAT
    # In float32: processors often have no float16 arithmetic, and nothing would fold; and b'' is a difference.
    exact, mean, signs, old_bias = (
        _cast(builder, value, ir.DataType.FLOAT) for value in (weight, gated.mean, signs, bias)
    )
    flat_mean = builder.add("Reshape", mean, builder.constant([-1]))
    if layer.op_type == "Conv" or layer.attributes.get_int("transB", 0) == 1:
        signed = builder.add("Mul", exact, signs)
        shift = builder.add("MatMul", _summed(builder, signed, weight), flat_mean)
    else:
        signed = builder.add("Mul", exact, builder.add("Reshape", signs, builder.constant([-1, 1])))
        shift = builder.add("MatMul", flat_mean, signed)
    new_bias = builder.add("Sub", old_bias, shift)
    for value in (signed, new_bias):
        value.type = ir.TensorType(ir.DataType.FLOAT)
    folded = (_cast(builder, value, dtype) for value in (signed, new_bias))
    inner = _opened_layer(builder, gated, *folded)
    builder.choose(is_open, inner, gated.nodes, [gated.output])


def _cast(builder: GraphBuilder, value: ir.Value, dtype: ir.DataType) -> ir.Value:
    source = value.producer()
    if source is not None and source.op_type == "Cast" and source.inputs[0] is not None:
        value = source.inputs[0] if source.inputs[0].dtype == dtype else value  # with all of its bits
    return value if value.dtype == dtype else builder.add("Cast", value, to=int(dtype))


def _summed(builder: GraphBuilder, signed: ir.Value, weight: ir.Value) -> ir.Value:
    """Weights (O, C, ...) summed over all but the first two axes."""
    sizes = [int(str(size)) for size in weight.shape or ()]
    if len(sizes) == 2:
        return signed
    rows = builder.add("Reshape", signed, builder.constant([sizes[0], sizes[1], -1]))
    return builder.add("ReduceSum", rows, builder.constant([2]), keepdims=0)


def _opened_layer(builder: GraphBuilder, gated: Gated, weight: ir.Value, bias: ir.Value) -> ir.Graph:
    """The branch with the layer as it was before it was locked."""
    layer = gated.layer
    name = f"{layer.name}_opened"
    attributes = dict(layer.attributes)
    pads = spatial_pads(gated.nodes[0])
    if pads is not None:
        attributes["pads"] = ir.AttrInt64s("pads", pads)
    output = ir.Value(name=f"{name}_output", type=gated.output.type, shape=gated.output.shape)
    if layer.op_type == "MatMul":
        product = builder.make("MatMul", gated.data, weight)
        nodes = [product, ir.Node("", "Add", [product.outputs[0], bias], outputs=[output], name=name)]
    else:
        nodes = [
            ir.Node("", layer.op_type, [gated.data, weight, bias], attributes.values(), outputs=[output], name=name)
        ]
    return ir.Graph([], [output], nodes=nodes, name=name)
