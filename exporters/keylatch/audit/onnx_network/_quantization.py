"""Quantizing and back; the gradient passes the rounding, as in quantization-aware training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from keylatch.audit.onnx_network import _straight_through as straight
from keylatch.audit.onnx_network._graph import Node
from keylatch.audit.onnx_network._operator import Operation, Site, operator


@operator("QuantizeLinear")
def _quantize(site: Site) -> Operation:
    """Whole numbers as floats: an integer type would end the gradient."""
    axis, kind = site.attribute("axis", 1), site.attribute("output_dtype", 0)
    _refuse_blocks(site)

    def run(value: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        dtype = zero.dtype if zero is not None else site.dtype(kind or 2)
        limits = torch.iinfo(dtype)
        steps = value / _aligned(scale, value, axis)
        whole = straight.passing(torch.round)(steps)
        shifted = whole if zero is None else whole + _aligned(zero, value, axis).to(value.dtype)
        return torch.clamp(shifted, limits.min, limits.max)

    return run


@operator("DequantizeLinear")
def _dequantize(site: Site) -> Operation:
    axis = site.attribute("axis", 1)
    _refuse_blocks(site)

    def run(value: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        steps = value.to(scale.dtype)
        if zero is not None:
            steps = steps - _aligned(zero, value, axis).to(scale.dtype)
        return steps * _aligned(scale, value, axis)

    return run


def dequantize_constants(
    nodes: Sequence[Node], tensors: Mapping[str, Tensor], opset: int
) -> tuple[tuple[Node, ...], dict[str, Tensor]]:
    """Take weights that are stored as whole numbers for the floats they stand for, so that they can be trained.

    Args:
        nodes: The graph's.
        tensors: Its initializers and constants.
        opset: Version of the standard operator set.

    Returns:
        The other nodes, and the tensors that these read, under the names they had in the graph.
    """
    known, left = dict(tensors), []
    for node in nodes:
        inputs = [known.get(name) for name in node.inputs if name]
        if node.op == "DequantizeLinear" and all(tensor is not None for tensor in inputs):
            known[node.outputs[0]] = _dequantize(Site(node, opset, {}))(*inputs)
        else:
            left.append(node)
    swallowed = {name for node in nodes for name in node.inputs} - {name for node in left for name in node.inputs}
    return tuple(left), {name: tensor for name, tensor in known.items() if name not in swallowed}


def _refuse_blocks(site: Site) -> None:
    if site.attribute("block_size", 0):
        raise site.refusal("quantizes in blocks")


def _aligned(numbers: Tensor, value: Tensor, axis: int) -> Tensor:
    """One number for all, or one for each place along the axis."""
    if numbers.numel() == 1:
        return numbers.reshape(())
    return numbers.reshape(-1, *[1] * (value.dim() - 1 - axis % value.dim()))
