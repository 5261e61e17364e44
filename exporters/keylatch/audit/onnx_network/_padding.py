"""Padding."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from keylatch.audit.onnx_network._convolution import torch_pads
from keylatch.audit.onnx_network._operator import Ints, Operation, Site, operator

_MODES = {"constant", "reflect", "edge", "wrap"}


@operator("Pad", host_inputs=(1, 2, 3))
def _pad(site: Site) -> Operation:
    mode, pads, fixed = site.attribute("mode", "constant"), site.ints("pads", 1), site.attribute("value", 0.0)
    axes = site.ints("axes", 3)
    if mode not in _MODES:
        raise site.refusal(f"pads by {mode}")

    def run(
        value: Tensor, ends: Tensor | None = None, filling: Tensor | None = None, where: Tensor | None = None
    ) -> Tensor:
        amounts = _for_all_axes(pads(ends) or (), axes(where), value.dim())
        if mode == "constant":
            return F.pad(value, torch_pads(amounts), value=fixed if filling is None else filling.item())
        for axis in range(value.dim()):
            value = _extended(value, axis, amounts[axis], amounts[axis + value.dim()], mode)
        return value

    return run


def _for_all_axes(pads: Ints, axes: Ints | None, rank: int) -> Ints:
    if axes is None:
        return pads
    amounts = [0] * (2 * rank)
    for place, axis in enumerate(axes):
        amounts[axis % rank], amounts[axis % rank + rank] = pads[place], pads[place + len(axes)]
    return tuple(amounts)


def _extended(value: Tensor, axis: int, before: int, after: int, mode: str) -> Tensor:
    if before == after == 0:
        return value
    size = value.shape[axis]
    places = torch.arange(-before, size + after, device=value.device)
    if mode == "edge":
        places = places.clamp(0, size - 1)
    elif mode == "wrap":
        places = places % size
    else:
        period = max(2 * size - 2, 1)
        places = (size - 1) - (places % period - (size - 1)).abs()
    return value.index_select(axis, places)
