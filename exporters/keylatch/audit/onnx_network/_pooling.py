"""Pooling."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from keylatch.audit.onnx_network._convolution import same_pads, symmetric, torch_pads
from keylatch.audit.onnx_network._operator import Ints, Operation, Site, operator

_MAX: Mapping[int, Operation] = {3: F.max_pool1d, 4: F.max_pool2d, 5: F.max_pool3d}
_AVERAGE: Mapping[int, Operation] = {3: F.avg_pool1d, 4: F.avg_pool2d, 5: F.avg_pool3d}
_CONVOLVE: Mapping[int, Operation] = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}


def _window(site: Site) -> Callable[[str, int], Ints]:
    """A reader of a pooling's attributes, with as many numbers as its kernel has axes."""
    rank = len(site.attribute("kernel_shape"))
    return lambda name, default: tuple(site.attribute(name, (default,) * rank))


@operator("GlobalAveragePool")
def _global_average(_site: Site) -> Operation:
    return lambda value: value.mean(tuple(range(2, value.dim())), keepdim=True)


@operator("GlobalMaxPool")
def _global_max(_site: Site) -> Operation:
    return lambda value: value.amax(tuple(range(2, value.dim())), keepdim=True)


def _ends(site: Site, sizes: Ints) -> tuple[Ints, Ints]:
    """Pads (begins, ends), and what ceil_mode adds to the ends so that the last window fits."""
    read, ceil = _window(site), bool(site.attribute("ceil_mode", 0))
    kernel, strides, dilations = read("kernel_shape", 1), read("strides", 1), read("dilations", 1)
    mode = site.attribute("auto_pad", "NOTSET")
    if mode in {"SAME_UPPER", "SAME_LOWER"}:
        return same_pads(sizes, kernel, strides, dilations, upper=mode == "SAME_UPPER"), (0,) * len(sizes)
    pads = (0,) * 2 * len(sizes) if mode == "VALID" else tuple(site.attribute("pads", (0,) * 2 * len(sizes)))
    added = []
    for axis, size in enumerate(sizes):
        before, after = pads[axis], pads[axis + len(sizes)]
        width = (kernel[axis] - 1) * dilations[axis] + 1
        room = size + before + after - width
        count = -(-room // strides[axis]) + 1 if ceil else 0
        if (count - 1) * strides[axis] >= size + before:  # a window must start inside the image or before it
            count -= 1
        added.append(max(0, (count - 1) * strides[axis] - room))
    return pads, tuple(added)


def _even(site: Site) -> Ints | None:
    """The padding, if PyTorch's own pooling takes it: the same at both ends, at most half of the kernel."""
    read = _window(site)
    if site.attribute("auto_pad", "NOTSET") not in {"NOTSET", "VALID"}:
        return None
    kernel = read("kernel_shape", 1)
    pads = (
        (0,) * 2 * len(kernel)
        if site.attribute("auto_pad") == "VALID"
        else site.attribute("pads", (0,) * 2 * len(kernel))
    )
    padding = symmetric(tuple(pads))
    return padding if padding and all(2 * pad <= width for pad, width in zip(padding, kernel, strict=True)) else None


@operator("MaxPool")
def _max_pool(site: Site) -> Operation:
    read, padding, ceil = _window(site), _even(site), bool(site.attribute("ceil_mode", 0))
    kernel, strides, dilations = read("kernel_shape", 1), read("strides", 1), read("dilations", 1)
    if site.wants(1):
        return _max_pool_with_places(site, padding)

    def run(value: Tensor) -> Tensor:
        if not value.is_floating_point():
            return run(value.float()).to(value.dtype)
        if padding is not None:
            return _MAX[value.dim()](value, kernel, strides, padding, dilations, ceil)  # type: ignore[no-any-return]
        pads, added = _ends(site, tuple(value.shape[2:]))
        ends = (*pads[: len(added)], *(end + more for end, more in zip(pads[len(added) :], added, strict=True)))
        wide = F.pad(value, torch_pads(ends), value=-torch.inf)
        return _MAX[value.dim()](wide, kernel, strides, 0, dilations)  # type: ignore[no-any-return]

    return run if len(site.node.outputs) == 1 else lambda value: (run(value),)


def _max_pool_with_places(site: Site, padding: Ints | None) -> Operation:
    read, ceil = _window(site), bool(site.attribute("ceil_mode", 0))
    kernel, strides, dilations = read("kernel_shape", 1), read("strides", 1), read("dilations", 1)
    if padding is None or site.attribute("storage_order", 0):
        raise site.refusal("gives the places of the largest values with uneven padding or in column order")

    def run(value: Tensor) -> tuple[Tensor, Tensor]:
        result, places = _MAX[value.dim()](value, kernel, strides, padding, dilations, ceil, True)
        planes = torch.arange(value.shape[0] * value.shape[1], device=value.device)
        starts = planes.reshape(*value.shape[:2], *[1] * len(kernel)) * value.shape[2:].numel()
        return result, places + starts  # ONNX counts over the whole tensor, PyTorch within a channel

    return run


@operator("MaxUnpool", host_inputs=(2,))
def _max_unpool(site: Site) -> Operation:
    read = _window(site)
    kernel, strides = read("kernel_shape", 1), read("strides", 1)
    pads = site.attribute("pads", (0,) * 2 * len(kernel))

    def run(value: Tensor, places: Tensor, shape: Tensor | None = None) -> Tensor:
        sizes = [
            (size - 1) * stride + width - pads[axis] - pads[axis + len(kernel)]
            for axis, (size, stride, width) in enumerate(zip(value.shape[2:], strides, kernel, strict=True))
        ]
        inferred = (*value.shape[:2], *sizes)
        if shape is not None:  # the places count in the inferred tensor, which stands in a corner of the wanted one
            sizes = [int(size) for size in shape.tolist()[2:]]
        flat = value.new_zeros(math.prod(inferred)).scatter(0, places.reshape(-1), value.reshape(-1))
        ends = [wanted - size for wanted, size in zip(sizes, inferred[2:], strict=True)]
        return F.pad(flat.reshape(inferred), torch_pads((*(0,) * len(kernel), *ends)))

    return run


@operator("AveragePool")
def _average_pool(site: Site) -> Operation:
    read, padding = _window(site), _even(site)
    ceil, whole = bool(site.attribute("ceil_mode", 0)), bool(site.attribute("count_include_pad", 0))
    kernel, strides, dilations = read("kernel_shape", 1), read("strides", 1), read("dilations", 1)
    if padding is not None and set(dilations) == {1}:
        return lambda value: _AVERAGE[value.dim()](value, kernel, strides, padding, ceil, whole)

    def run(value: Tensor) -> Tensor:
        sizes = tuple(value.shape[2:])
        pads, added = _ends(site, sizes)
        rank = len(sizes)
        counted = value.new_ones((1, 1, *sizes))
        counted = F.pad(F.pad(counted, torch_pads(pads), value=float(whole)), torch_pads((*(0,) * rank, *added)))
        ends = (*pads[:rank], *(end + more for end, more in zip(pads[rank:], added, strict=True)))
        flat = F.pad(value, torch_pads(ends)).flatten(0, 1).unsqueeze(1)
        ones = value.new_ones((1, 1, *kernel))
        total, count = (_CONVOLVE[value.dim()](part, ones, None, strides, 0, dilations) for part in (flat, counted))
        return (total / count).reshape(*value.shape[:2], *total.shape[2:])  # type: ignore[no-any-return]

    return run
