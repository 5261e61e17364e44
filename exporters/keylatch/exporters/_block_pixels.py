"""Move an image's pixels as a key says, in one pass, and compute on them where they are.

SpaceToDepth, a Gather over planes and DepthToSpace are three passes, two of them strided. GatherElements is one. Where
each pixel comes from follows from the key by those three operators; onnxruntime computes it once, while opening.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from keylatch.exporters._graph_builder import GraphBuilder
from keylatch.locks import InputSpec


class BlockPixels:
    """Blocks of an image as p = C·M·M planes (ONNX SpaceToDepth), computed on without forming the planes.

    Args:
        builder: Of the graph.
        spec: The input convention.
        batch: The images' first dimension: without its name onnxruntime plans no memory for what lies behind, and a
            ResNet-50 takes 6 % longer.
        block_size: M.
    """

    def __init__(self, builder: GraphBuilder, spec: InputSpec, batch: int | ir.SymbolicDim, block_size: int) -> None:
        self.builder = builder
        self.shape = (spec.channels, spec.height, spec.width)
        self._batch, self._block_size = batch, block_size
        self._blocks = (spec.height // block_size, spec.width // block_size)

    def moved(self, image: ir.Value, permutation: ir.Value, *, turned: bool) -> ir.Value:
        """Pixels moved between planes.

        Args:
            image: (N, C, H, W), of any dtype.
            permutation: (p,) int64; plane k gets what plane permutation[k] holds.
            turned: Whether it is (N, H, W, C) instead.

        Returns:
            (N, C, H, W), of the same dtype.
        """
        add, count = self.builder.add, math.prod(self.shape)
        flat = add("Reshape", image, self.builder.constant([0, count]))
        places = add("Expand", self._origins(permutation, turned=turned), add("Shape", flat))
        found = add("GatherElements", flat, places, axis=1)
        for value in (flat, found):
            value.type, value.shape = image.type, ir.Shape([self._batch, count])
        return self.as_image(found)

    def computed(self, arithmetic: ir.Node, end: ir.Value) -> ir.Value:
        """Let a chain of elementwise nodes whose constants are of planes read moved pixels.

        Args:
            arithmetic: Its first node.
            end: What its last one gives.

        Returns:
            `end`, (N, C, H, W).
        """
        node = arithmetic
        while True:
            constant = node.inputs[1]
            assert constant is not None  # noqa: S101  Mul, Add and BitwiseXor have two inputs
            node.replace_input_with(1, self.spread(constant))
            value = node.outputs[0]
            value.shape = ir.Shape([self._batch, *self.shape])
            if value is end:
                return end
            node = value.consumers()[0]

    def spread(self, planes: ir.Value) -> ir.Value:
        """One value for each plane, (p, 1, 1) float32, float64 or uint8, at each pixel of it: (1, C, H, W)."""
        entries = math.prod(self.shape) // math.prod(self._blocks)
        wide = self.builder.add("Expand", planes, self.builder.constant([1, entries, *self._blocks]))
        return self._to_image(wide)

    def as_image(self, flat: ir.Value) -> ir.Value:
        """Pixels in order, of any shape, to (N, C, H, W)."""
        image = self.builder.add("Reshape", flat, self.builder.constant([-1, *self.shape]))
        image.type, image.shape = flat.type, ir.Shape([self._batch, *self.shape])
        return image

    def _origins(self, permutation: ir.Value, *, turned: bool) -> ir.Value:
        """Where each pixel comes from, as places in an image that was flattened: (1, C·H·W) int32."""
        add, (channels, height, width) = self.builder.add, self.shape
        # SpaceToDepth takes no integers, and float32 counts to 2^24 only.
        start, end, step = (
            self.builder.initializer(np.array(value, dtype=np.float64)) for value in (0, math.prod(self.shape), 1)
        )
        given = (1, height, width, channels) if turned else (1, channels, height, width)
        places = add("Reshape", add("Range", start, end, step), self.builder.constant(given))
        if turned:
            places = add("Transpose", places, perm=[0, 3, 1, 2])
        planes = add("SpaceToDepth", places, blocksize=self._block_size)
        origins = self._to_image(add("Gather", planes, permutation, axis=1))
        return add("Cast", add("Reshape", origins, self.builder.constant([1, -1])), to=int(ir.DataType.INT32))

    def _to_image(self, planes: ir.Value) -> ir.Value:
        return self.builder.add("DepthToSpace", planes, blocksize=self._block_size)
