"""Give an exported block gate the form that costs least.

As exported, a block transform is two transposes of six axes: 1 ms for one image of 224 x 224, 9 for eight. Here one
GatherElements moves the pixels, in a fifth of that. Where the next layer reads whole blocks, the transform moves into
that layer's weights, which onnxruntime computes while opening, and costs nothing (docs/decisions/0013).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from keylatch.exporters._block_pixels import BlockPixels
from keylatch.exporters._block_stems import block_reader, fold_into
from keylatch.exporters._block_tables import bytes_of, tabulate
from keylatch.exporters._graph_builder import GraphBuilder, drop_unread
from keylatch.locks import BlockDescription, InputSpec
from keylatch.locks._block_gate import SHOWN

PERMUTATION = "blocks.permutation"
_SCALE, _OFFSET, _CHOICE = "blocks.scale", "blocks.offset", "blocks.choice"
_ANCHORS = (_SCALE, "blocks.inversion", _CHOICE)
_TO_PLANES, _TO_IMAGE, _TO_NCHW = [0, 3, 5, 1, 2, 4], [0, 3, 4, 1, 5, 2], [0, 3, 1, 2]
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
    tensors, size = graph.initializers, description.block_size
    arithmetic = next(tensors[name] for name in _ANCHORS if name in tensors).consumers()[0]
    gather, shown = _gather_before(arithmetic), _image_after(arithmetic)
    image, end = _unshaped(gather.inputs[0], _TO_PLANES), _unshaped(shown, _TO_IMAGE)
    assert image.shape is not None  # noqa: S101  the exporter notes shapes
    permutation = builder.initializer(np.asarray(defaults[PERMUTATION]), PERMUTATION)
    stem = block_reader(shown, size) if _SCALE in tensors else None
    if stem is not None:
        fold_into(stem, builder, image, size, permutation, tensors[_SCALE], tensors[_OFFSET])
    else:
        given, turned = _as_given(image)
        looked_up = _CHOICE in tensors
        pixels = BlockPixels(builder, source, image.shape[0], size)
        moved = pixels.moved(bytes_of(builder, source, given) if looked_up else given, permutation, turned=turned)
        ir.convenience.replace_all_uses_with(gather.outputs[0], moved)
        end = tabulate(pixels, moved, arithmetic, end) if looked_up else pixels.computed(arithmetic, end)
        end.name = SHOWN
        ir.convenience.replace_all_uses_with(shown, end)
        drop_unread(graph, gather.outputs[0])
    drop_unread(graph, shown)
    graph.sort()
    return stem is not None


def _gather_before(node: ir.Node) -> ir.Node:
    """The Gather that moves planes, in front of the gate's arithmetic."""
    found = node.inputs[0].producer() if node.inputs[0] is not None else None
    while found is not None and found.op_type == "Cast" and found.inputs[0] is not None:
        found = found.inputs[0].producer()
    if found is None or found.op_type != "Gather":
        raise ValueError("the graph has no block gate where one was exported")
    return found


def _image_after(node: ir.Node) -> ir.Value:
    """What the gate's arithmetic gives, as an image again."""
    users = node.outputs[0].consumers()
    while len(users) == 1 and users[0].op_type in _BETWEEN:
        node = users[0]
        users = node.outputs[0].consumers()
    return users[0].outputs[0].consumers()[0].outputs[0].consumers()[0].outputs[0]


def _unshaped(value: ir.Value | None, axes: list[int]) -> ir.Value:
    """What Reshape, Transpose and Reshape made a value from."""
    last = None if value is None else value.producer()
    moved = None if last is None or last.inputs[0] is None else last.inputs[0].producer()
    first = None if moved is None or moved.inputs[0] is None else moved.inputs[0].producer()
    if last is None or moved is None or first is None or moved.op_type != "Transpose" or first.inputs[0] is None:
        raise ValueError("the graph has no block gate where one was exported")
    if list(moved.attributes.get_ints("perm")) != axes or {first.op_type, last.op_type} != {"Reshape"}:
        raise ValueError("the block gate was exported in another form")
    return first.inputs[0]


def _as_given(image: ir.Value) -> tuple[ir.Value, bool]:
    """An image before channels were put first, and whether they were."""
    node = image.producer()
    if node is None or node.op_type != "Transpose" or list(node.attributes.get_ints("perm")) != _TO_NCHW:
        return image, False
    assert node.inputs[0] is not None  # noqa: S101  a Transpose has an input
    return node.inputs[0], True
