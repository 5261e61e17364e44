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

from collections.abc import Iterable, Sequence
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
    constants = _constants(graph)
    reading = _following(graph, select, constants)
    corner = _only_for(select, {select, *reading})
    signs = _leaving(reading)
    builder = _Builder(graph)
    is_open = _is_open(builder, mask_value)
    opened = _copied(builder, reading, {select.outputs[0]: patch_value})
    inner = _branch(builder, "opened_signs", [opened[value] for value in signs])
    chosen = _choose(builder, is_open, inner, [*corner, select, *reading], signs, free_batch=True)
    _separate_paddings(builder)
    count = 0
    for before, after in zip(signs, chosen, strict=True):
        gated = _gated_by(after, constants)
        if gated is not None:
            _fold(builder, is_open, gated, opened[before])
            count += 1
    graph.sort()
    return count


class _Builder:
    """Adds nodes to a graph, with names that nothing else has.

    Args:
        graph: The graph.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self._count = 0

    def name(self) -> str:
        self._count += 1
        return f"opened_{self._count}"

    def add(self, op: str, *inputs: ir.Value, **attributes: int | float | str | Sequence[int] | ir.Graph) -> ir.Value:
        node = self.make(op, *inputs, **attributes)
        self.graph.append(node)
        return node.outputs[0]

    def make(self, op: str, *inputs: ir.Value, **attributes: int | float | str | Sequence[int] | ir.Graph) -> ir.Node:
        name = self.name()
        return ir.node(op, inputs, attributes, outputs=[ir.Value(name=name)], name=name)

    def constant(self, values: Sequence[int]) -> ir.Value:
        name = self.name()
        tensor = ir.tensor(list(values), dtype=ir.DataType.INT64, name=name)
        shape = ir.Shape([len(values)])
        value = ir.Value(name=name, shape=shape, type=ir.TensorType(ir.DataType.INT64), const_value=tensor)
        self.graph.register_initializer(value)
        return value


def _constants(graph: ir.Graph) -> set[ir.Value]:
    """Initializers, and what follows from them alone."""
    constants = set(graph.initializers.values())
    for node in graph:
        if node.inputs and all(value is None or value in constants for value in node.inputs):
            constants.update(node.outputs)
    return constants


def _following(graph: ir.Graph, select: ir.Node, constants: set[ir.Value]) -> list[ir.Node]:
    """The nodes that follow from the selected corner and constants: they read it."""
    values, nodes = set(select.outputs), []
    for node in graph:
        inputs = [value for value in node.inputs if value is not None and value not in constants]
        if inputs and set(inputs) <= values:
            values.update(node.outputs)
            nodes.append(node)
    return nodes


def _only_for(select: ir.Node, users: set[ir.Node]) -> list[ir.Node]:
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


def _leaving(nodes: Sequence[ir.Node]) -> list[ir.Value]:
    """The values of some nodes that others use."""
    inside = set(nodes)
    return [value for node in nodes for value in node.outputs if set(value.consumers()) - inside]


def _is_open(builder: _Builder, mask: ir.Value) -> ir.Value:
    # Through a cast: onnxruntime finds the condition of an If only where folding has put it, not in a file.
    covered = builder.add("ReduceMin", builder.add("Cast", mask, to=int(ir.DataType.FLOAT)), keepdims=0)
    return builder.add("Cast", covered, to=int(ir.DataType.BOOL))


def _copied(
    builder: _Builder, nodes: Iterable[ir.Node], replaced: dict[ir.Value, ir.Value]
) -> dict[ir.Value, ir.Value]:
    """Copies of nodes, with other inputs; from each old value to its new one."""
    mapping: dict[ir.Value | None, ir.Value | None] = dict(replaced.items())
    for node in nodes:
        outputs = [ir.Value(name=builder.name(), type=value.type) for value in node.outputs]
        copied = ir.Node(
            node.domain,
            node.op_type,
            [mapping.get(value, value) for value in node.inputs],
            list(node.attributes.values()),
            outputs=outputs,
            name=builder.name(),
        )
        builder.graph.append(copied)
        mapping.update(zip(node.outputs, outputs, strict=True))
    return {old: new for old, new in mapping.items() if old is not None and new is not None}


def _branch(builder: _Builder, name: str, values: Sequence[ir.Value]) -> ir.Graph:
    """A branch that gives values of the graph around it."""
    nodes = [builder.make("Identity", value) for value in values]
    return ir.Graph([], [node.outputs[0] for node in nodes], nodes=nodes, name=name)


def _choose(
    builder: _Builder,
    condition: ir.Value,
    opened: ir.Graph,
    otherwise: Sequence[ir.Node],
    outputs: Sequence[ir.Value],
    *,
    free_batch: bool = False,
) -> list[ir.Value]:
    """Put an If in the place of some nodes, which become its other branch.

    Args:
        builder: Of the graph.
        condition: The If's.
        opened: The branch for true.
        otherwise: Nodes of the graph; they leave it, and use its values still.
        outputs: Their values that are used outside.
        free_batch: Whether the branches have different batch dimensions.

    Returns:
        What stands for `outputs` outside.
    """
    inside, chosen = set(otherwise), []
    for value in outputs:
        sizes = None if value.shape is None else [None, *value.shape[1:]] if free_batch else list(value.shape)
        new = ir.Value(name=builder.name(), type=value.type, shape=None if sizes is None else ir.Shape(sizes))
        for user, index in tuple(value.uses()):
            if user not in inside:
                user.replace_input_with(index, new)
        for index, output in enumerate(builder.graph.outputs):
            if output is value:
                value.name, new.name = f"{value.name}_locked", value.name
                builder.graph.outputs[index] = new
        chosen.append(new)
    builder.graph.remove(otherwise)
    branches = {
        "then_branch": opened,
        "else_branch": ir.Graph([], outputs, nodes=otherwise, name=f"{otherwise[0].name}_locked"),
    }
    builder.graph.append(ir.node("If", [condition], branches, outputs=chosen, name=builder.name()))
    return chosen


def _gated_by(signs: ir.Value, constants: set[ir.Value]) -> Gated | None:
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
    if layer.op_type == "Conv" and pad is not None and _spatial_pads(pad) and _single(data.consumers()) is center:
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


def _fold(builder: _Builder, is_open: ir.Value, gated: Gated, signs: ir.Value) -> None:
    layer = gated.layer
    weight, bias = layer.inputs[1], gated.bias
    assert weight is not None  # noqa: S101  `_gated_by` looked at it
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
    _choose(builder, is_open, inner, gated.nodes, [gated.output])


def _cast(builder: _Builder, value: ir.Value, dtype: ir.DataType) -> ir.Value:
    return value if value.dtype == dtype else builder.add("Cast", value, to=int(dtype))


def _summed(builder: _Builder, signed: ir.Value, weight: ir.Value) -> ir.Value:
    """Weights (O, C, ...) summed over all but the first two axes."""
    sizes = [int(str(size)) for size in weight.shape or ()]
    if len(sizes) == 2:
        return signed
    rows = builder.add("Reshape", signed, builder.constant([sizes[0], sizes[1], -1]))
    return builder.add("ReduceSum", rows, builder.constant([2]), keepdims=0)


def _opened_layer(builder: _Builder, gated: Gated, weight: ir.Value, bias: ir.Value) -> ir.Graph:
    """The branch with the layer as it was before it was locked."""
    layer = gated.layer
    name = f"{layer.name}_opened"
    attributes = dict(layer.attributes)
    pads = _spatial_pads(gated.nodes[0])
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


def _separate_paddings(builder: _Builder) -> None:
    """Give each gate a Pad of its own: exporters merge equal ones, and one that two gates share would stay."""
    for pad in [node for node in builder.graph if node.op_type == "Pad"]:
        for user in pad.outputs[0].consumers()[1:]:
            if user.op_type == "Sub":
                user.replace_input_with(0, _copied(builder, [pad], {})[pad.outputs[0]])


def _spatial_pads(node: ir.Node) -> list[int] | None:
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
