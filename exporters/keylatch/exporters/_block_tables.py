"""Look encrypted pixels up faster than as exported.

As exported, a table is gathered from pixel by pixel and the numbers are normalized afterwards. Here the gate's
arithmetic runs over all 256 bytes of each plane instead, which onnxruntime computes once while opening; what is left of
it for a pixel is GatherElements, a third of the time (docs/decisions/0013). Floats become bytes by QuantizeLinear.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from keylatch.exporters._block_pixels import BlockPixels
from keylatch.exporters._graph_builder import GraphBuilder, drop_unread
from keylatch.locks import InputSpec

_ROUNDING = ("Clip", "Round", "Mul", "Add", "Mul")  # of normalized floats to bytes, last first
_WHITE = 255


def bytes_of(builder: GraphBuilder, spec: InputSpec, pixels: ir.Value) -> ir.Value:
    """What a gate rounds normalized floats to, as uint8; `pixels` themselves if the image comes as bytes.

    Args:
        builder: Of the graph.
        spec: The input convention.
        pixels: What the gate reads, in the layout of the convention.

    Raises:
        ValueError: If the gate was exported in another form.
    """
    if spec.dtype == "uint8":
        return pixels
    image: ir.Value | None = pixels
    for op in _ROUNDING:
        node = None if image is None else image.producer()
        if node is None or node.op_type != op or node.inputs[0] is None:
            raise ValueError("the block gate was exported in another form")
        image = node.inputs[0]
    mean, std = (np.array(values, dtype=np.float64) for values in (spec.mean, spec.std))
    first = spec.layout == "NCHW"
    shift = (mean / std).astype(np.float32).reshape((1, -1, 1, 1) if first else (1, 1, 1, -1))
    scale = (1 / (_WHITE * std)).astype(np.float32)
    assert image is not None  # noqa: S101  the loop looked at it
    moved = builder.add("Add", image, builder.initializer(shift))
    steps = builder.initializer(scale), builder.initializer(np.zeros(len(scale), np.uint8))
    found = builder.add("QuantizeLinear", moved, *steps, axis=1 if first else 3)
    found.type, found.shape = ir.TensorType(ir.DataType.UINT8), pixels.shape
    return found


def tabulate(pixels: BlockPixels, moved: ir.Value, arithmetic: ir.Node, end: ir.Value) -> ir.Value:
    """Tables of what the gate's arithmetic gives for each byte in each plane, and the look-up in them.

    Args:
        pixels: The image's.
        moved: (N, C, H, W), bytes as integers or floats.
        arithmetic: Its first node, which reads planes as int32.
        end: What it gives, (N, p, H/M, W/M) float32.

    Returns:
        In the place of `end`, as an image.
    """
    builder, count = pixels.builder, np.iinfo(np.uint8).max + 1
    exported, (_, entries, *_) = arithmetic.inputs[0], (str(size) for size in end.shape or ())
    assert exported is not None  # noqa: S101  it reads the planes
    arithmetic.replace_input_with(0, builder.initializer(np.arange(count, dtype=np.int32).reshape(1, 1, 1, -1)))
    starts = pixels.spread(builder.initializer(count * np.arange(int(entries), dtype=np.float32).reshape(-1, 1, 1)))
    places = builder.add("Add", *(builder.add("Cast", value, to=int(ir.DataType.INT32)) for value in (moved, starts)))
    drop_unread(builder.graph, exported)
    _forget_shapes(arithmetic, end)
    flat = builder.constant([1, -1])
    found = builder.add(
        "GatherElements", builder.add("Reshape", end, flat), builder.add("Reshape", places, flat), axis=1
    )
    found.type = end.type
    return pixels.as_image(found)


def _forget_shapes(node: ir.Node, end: ir.Value) -> None:
    """Of what a chain of nodes gives, up to `end`."""
    value = node.outputs[0]
    while value is not end:
        value.shape = None
        value = value.consumers()[0].outputs[0]
    end.shape = None
