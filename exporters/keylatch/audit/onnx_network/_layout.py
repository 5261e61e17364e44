"""Reshaping, joining and cutting: the values stay as they are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from keylatch.audit.onnx_network._operator import Ints, Operation, Site, as_ints, operator


@operator("Reshape", host_inputs=(1,))
def _reshape(site: Site) -> Operation:
    sizes, literal = site.ints("shape", 1), bool(site.attribute("allowzero", 0))

    def run(value: Tensor, shape: Tensor | None = None) -> Tensor:
        wanted = sizes(shape) or ()
        if 0 in wanted and not literal:
            wanted = tuple(size or value.shape[axis] for axis, size in enumerate(wanted))
        return value.reshape(wanted)

    return run


@operator("Flatten")
def _flatten(site: Site) -> Operation:
    axis = site.attribute("axis", 1)

    def run(value: Tensor) -> Tensor:
        place = axis + value.dim() if axis < 0 else axis
        return value.reshape(value.shape[:place].numel(), value.shape[place:].numel())

    return run


@operator("Transpose")
def _transpose(site: Site) -> Operation:
    order = site.attribute("perm")
    if order is None:
        return lambda value: value.permute(tuple(reversed(range(value.dim()))))
    return lambda value: value.permute(order)


@operator("Squeeze", host_inputs=(1,))
def _squeeze(site: Site) -> Operation:
    axes = site.ints("axes", 1)

    def run(value: Tensor, where: Tensor | None = None) -> Tensor:
        places = axes(where)
        return value.squeeze() if places is None else value.squeeze(places)

    return run


@operator("Unsqueeze", host_inputs=(1,))
def _unsqueeze(site: Site) -> Operation:
    axes = site.ints("axes", 1)

    def run(value: Tensor, where: Tensor | None = None) -> Tensor:
        places = axes(where) or ()
        rank = value.dim() + len(places)
        for place in sorted(place % rank for place in places):
            value = value.unsqueeze(place)
        return value

    return run


@operator("Concat")
def _concat(site: Site) -> Operation:
    axis = site.attribute("axis", 1)
    return lambda *values: torch.cat(values, axis)


@operator("Split", host_inputs=(1,))
def _split(site: Site) -> Operation:
    axis, sizes, parts = site.attribute("axis", 0), site.ints("split", 1), len(site.node.outputs)

    def run(value: Tensor, split: Tensor | None = None) -> Any:
        cut = sizes(split)
        pieces = torch.split(value, list(_equal_sizes(value.shape[axis], parts) if cut is None else cut), axis)
        return pieces[0] if parts == 1 else pieces

    return run


def _equal_sizes(size: int, parts: int) -> Ints:
    """All alike but the last, which may be smaller."""
    each = -(-size // parts)
    return (*[each] * (parts - 1), size - each * (parts - 1))


@operator("Slice", host_inputs=(1, 2, 3, 4))
def _slice(site: Site) -> Operation:
    starts, ends = site.ints("starts", 1), site.ints("ends", 2)
    axes, steps = site.ints("axes", 3), site.ints("steps", 4)

    def run(value: Tensor, *given: Tensor | None) -> Tensor:
        first, last, places, strides = [*given, None, None, None, None][:4]
        begin, end = starts(first) or (), ends(last) or ()
        where = axes(places) or tuple(range(len(begin)))
        step = steps(strides) or (1,) * len(begin)
        for place, *bounds in zip(where, begin, end, step, strict=True):
            value = _cut(value, place, slice(*bounds))
        return value

    return run


def _cut(value: Tensor, axis: int, part: slice) -> Tensor:
    start, stop, step = part.indices(value.shape[axis])
    if step == 1:
        return value.narrow(axis, start, max(0, stop - start))
    if step > 0:
        return value[(*[slice(None)] * (axis % value.dim()), slice(start, stop, step))]
    return value.index_select(axis, torch.arange(start, max(stop, -1), step, device=value.device))


@operator("Tile", host_inputs=(1,))
def _tile(_site: Site) -> Operation:
    return lambda value, repeats: value.repeat(as_ints(repeats))


@operator("DepthToSpace")
def _depth_to_space(site: Site) -> Operation:
    side, depth_first = site.attribute("blocksize"), site.attribute("mode", "DCR") == "DCR"

    def run(value: Tensor) -> Tensor:
        count, channels, height, width = value.shape
        left = channels // side**2
        if depth_first:
            blocks = value.reshape(count, side, side, left, height, width).permute(0, 3, 4, 1, 5, 2)
        else:
            blocks = value.reshape(count, left, side, side, height, width).permute(0, 1, 4, 2, 5, 3)
        return blocks.reshape(count, left, height * side, width * side)

    return run


@operator("SpaceToDepth")
def _space_to_depth(site: Site) -> Operation:
    side, depth_first = site.attribute("blocksize"), site.attribute("mode", "DCR") == "DCR"
    order = (0, 3, 5, 1, 2, 4) if depth_first else (0, 1, 3, 5, 2, 4)

    def run(value: Tensor) -> Tensor:
        count, channels, height, width = value.shape
        blocks = value.reshape(count, channels, height // side, side, width // side, side).permute(order)
        return blocks.reshape(count, channels * side**2, height // side, width // side)

    return run
