"""Tensors from shapes and numbers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from keylatch.audit.onnx_network._operator import Operation, Site, as_ints, operator


@operator("Shape")
def _shape(site: Site) -> Operation:
    start, end = site.attribute("start", 0), site.attribute("end")
    return lambda value: torch.tensor(value.shape[start:end], dtype=torch.int64)


@operator("Size")
def _size(_site: Site) -> Operation:
    return lambda value: torch.tensor(value.numel())


@operator("ConstantOfShape", host_inputs=(0,))
def _constant_of_shape(site: Site) -> Operation:
    value = site.attribute("value", torch.zeros(1))
    number, dtype = value.item(), value.dtype
    if site.float_dtype is not None and dtype.is_floating_point:
        dtype = site.float_dtype
    return lambda shape: torch.full(as_ints(shape), number, dtype=dtype, device=shape.device)


@operator("Range", host_inputs=(0, 1, 2))
def _range(_site: Site) -> Operation:
    def run(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
        return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype, device=start.device)

    return run


@operator("Expand", host_inputs=(1,))
def _expand(_site: Site) -> Operation:
    return lambda value, shape: value.expand(np.broadcast_shapes(value.shape, as_ints(shape)))


@operator("EyeLike")
def _eye_like(site: Site) -> Operation:
    offset, kind = site.attribute("k", 0), site.attribute("dtype")

    def run(value: Tensor) -> Tensor:
        dtype = value.dtype if kind is None else site.dtype(kind)
        ones = torch.ones(tuple(value.shape), dtype=dtype, device=value.device)
        return ones.triu(offset).tril(offset)

    return run


@operator("OneHot", host_inputs=(1,))
def _one_hot(site: Site) -> Operation:
    axis = site.attribute("axis", -1)

    def run(indices: Tensor, depth: Tensor, values: Tensor) -> Tensor:
        count = int(depth.item())
        place = axis % (indices.dim() + 1)
        classes = torch.arange(count, device=indices.device).reshape(-1, *[1] * (indices.dim() - place))
        wanted = torch.where(indices < 0, indices + count, indices).unsqueeze(place)
        return torch.where(wanted == classes, values[1], values[0])

    return run


@operator("Trilu", host_inputs=(1,))
def _trilu(site: Site) -> Operation:
    cut = torch.triu if site.attribute("upper", 1) else torch.tril
    return lambda value, diagonal=None: cut(value, 0 if diagonal is None else int(diagonal.item()))
