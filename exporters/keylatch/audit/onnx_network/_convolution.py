"""Convolutions and matrix products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from keylatch.audit.onnx_network._operator import Ints, Operation, Site, operator

_CONVOLVE: Mapping[int, Operation] = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}
_TRANSPOSED: Mapping[int, Operation] = {3: F.conv_transpose1d, 4: F.conv_transpose2d, 5: F.conv_transpose3d}


def same_pads(sizes: Ints, kernel: Ints, strides: Ints, dilations: Ints, *, upper: bool) -> Ints:
    """ONNX pads (begins, ends) that give ceil(size / stride) places: auto_pad SAME_UPPER or SAME_LOWER."""
    totals = [
        max((-(-size // stride) - 1) * stride + (width - 1) * dilation + 1 - size, 0)
        for size, width, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True)
    ]
    small, large = tuple(total // 2 for total in totals), tuple(total - total // 2 for total in totals)
    return (*small, *large) if upper else (*large, *small)


def torch_pads(pads: Sequence[int]) -> list[int]:
    """ONNX pads (begins, ends) in the order of `F.pad`: pairs, the last axis first."""
    half = len(pads) // 2
    return [pads[axis + half * end] for axis in reversed(range(half)) for end in (0, 1)]


def symmetric(pads: Ints) -> Ints | None:
    """One padding for each axis, if both ends have the same."""
    half = len(pads) // 2
    return pads[:half] if pads[:half] == pads[half:] and min(pads, default=0) >= 0 else None


@operator("Conv")
def _conv(site: Site) -> Operation:
    groups, mode = site.attribute("group", 1), site.attribute("auto_pad", "NOTSET")
    strides, dilations, pads = site.attribute("strides"), site.attribute("dilations"), site.attribute("pads")
    stride, dilation = strides or 1, dilations or 1
    even = symmetric(pads or (0,)) if mode in {"NOTSET", "VALID"} else None
    padding = (even if pads else 0) if mode == "NOTSET" else 0
    if padding is not None and (even is not None or mode == "VALID"):

        def run(value: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
            return _CONVOLVE[weight.dim()](value, weight, bias, stride, padding, dilation, groups)  # type: ignore[no-any-return]

        return run

    def padded(value: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        ends = _pads(site, value, weight)
        return _CONVOLVE[weight.dim()](F.pad(value, torch_pads(ends)), weight, bias, stride, 0, dilation, groups)  # type: ignore[no-any-return]

    return padded


def _pads(site: Site, value: Tensor, weight: Tensor) -> Ints:
    mode, rank = site.attribute("auto_pad", "NOTSET"), value.dim() - 2
    ones = (1,) * rank
    if mode not in {"SAME_UPPER", "SAME_LOWER"}:
        return tuple(site.attribute("pads", (0,) * 2 * rank))
    strides, dilations = site.attribute("strides", ones), site.attribute("dilations", ones)
    kernel = tuple(weight.shape[2:])
    return same_pads(tuple(value.shape[2:]), kernel, strides, dilations, upper=mode == "SAME_UPPER")


@operator("ConvTranspose")
def _conv_transpose(site: Site) -> Operation:
    groups, strides = site.attribute("group", 1), site.attribute("strides")
    dilations, extra = site.attribute("dilations"), site.attribute("output_padding")
    pads, wanted = site.attribute("pads"), site.attribute("output_shape")
    simple = site.attribute("auto_pad", "NOTSET") in {"NOTSET", "VALID"} and wanted is None
    padding = symmetric(pads) if pads else 0
    rest = (extra or 0, groups, dilations or 1)
    if simple and padding is not None:

        def run(value: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
            return _TRANSPOSED[value.dim()](value, weight, bias, strides or 1, padding, *rest)  # type: ignore[no-any-return]

        return run

    def cropped(value: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        full = _TRANSPOSED[value.dim()](value, weight, None, strides or 1, 0, *rest)
        ends = _transposed_pads(site, tuple(value.shape[2:]), tuple(full.shape[2:]))
        result = F.pad(full, [-end for end in torch_pads(ends)])
        return result if bias is None else result + bias.reshape(-1, *[1] * (value.dim() - 2))

    return cropped


def _transposed_pads(site: Site, sizes: Ints, full: Ints) -> Ints:
    """What is cut off the full output, (begins, ends)."""
    mode, wanted = site.attribute("auto_pad", "NOTSET"), site.attribute("output_shape")
    strides = site.attribute("strides", (1,) * len(sizes))
    if wanted is None and mode in {"NOTSET", "VALID"}:
        return tuple(site.attribute("pads"))
    target = wanted or [size * stride for size, stride in zip(sizes, strides, strict=True)]
    totals = [whole - part for whole, part in zip(full, target[-len(sizes) :], strict=True)]
    small, large = tuple(total // 2 for total in totals), tuple(total - total // 2 for total in totals)
    return (*small, *large) if mode == "SAME_UPPER" else (*large, *small)


@operator("Gemm")
def _gemm(site: Site) -> Operation:
    alpha, beta = site.attribute("alpha", 1.0), site.attribute("beta", 1.0)
    left, right = bool(site.attribute("transA", 0)), bool(site.attribute("transB", 0))
    linear = right and not left and alpha == beta == 1.0

    def run(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        if linear and (c is None or c.dim() == 1):
            return F.linear(a, b, c)
        product = (a.t() if left else a) @ (b.t() if right else b)
        product = product if alpha == 1.0 else alpha * product
        if c is None:
            return product
        return product + (c if beta == 1.0 else beta * c)

    return run


@operator("MatMul")
def _matmul(_site: Site) -> Operation:
    return torch.matmul


@operator("Einsum")
def _einsum(site: Site) -> Operation:
    equation = site.attribute("equation").replace(" ", "")
    return lambda *values: torch.einsum(equation, *values)
