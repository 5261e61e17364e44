"""Reductions over axes, and places of extremes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from keylatch.audit.onnx_network._operator import Ints, Operation, Site, operator

# Takes (value, axes, keepdim).
_Reduction = Callable[[Tensor, Ints, bool], Tensor]


def _product(value: Tensor, axes: Ints, keep: bool) -> Tensor:
    for axis in sorted((axis % max(value.dim(), 1) for axis in axes), reverse=True):
        value = value.prod(axis, keepdim=keep)
    return value


def _log_sum(value: Tensor, axes: Ints, keep: bool) -> Tensor:
    return value.sum(axes, keepdim=keep).log()


def _norm_1(value: Tensor, axes: Ints, keep: bool) -> Tensor:
    return value.abs().sum(axes, keepdim=keep)


def _norm_2(value: Tensor, axes: Ints, keep: bool) -> Tensor:
    if not value.is_floating_point():
        return value.float().square().sum(axes, keepdim=keep).sqrt().to(value.dtype)
    return torch.linalg.vector_norm(value, 2, axes, keepdim=keep)  # type: ignore[no-any-return]


def _sum(value: Tensor, axes: Ints, keep: bool) -> Tensor:
    return value.sum(axes, keepdim=keep, dtype=value.dtype)  # PyTorch would sum integers as int64


def _mean(value: Tensor, axes: Ints, keep: bool) -> Tensor:
    if not value.is_floating_point():
        return (value.double().mean(axes, keepdim=keep)).trunc().to(value.dtype)
    return value.mean(axes, keepdim=keep)


_REDUCTIONS: dict[str, _Reduction] = {
    "ReduceSum": _sum,
    "ReduceMean": _mean,
    "ReduceMax": lambda value, axes, keep: value.amax(axes, keepdim=keep),
    "ReduceMin": lambda value, axes, keep: value.amin(axes, keepdim=keep),
    "ReduceProd": _product,
    "ReduceL1": _norm_1,
    "ReduceL2": _norm_2,
    "ReduceLogSum": _log_sum,
    "ReduceLogSumExp": lambda value, axes, keep: torch.logsumexp(value, axes, keepdim=keep),
    "ReduceSumSquare": lambda value, axes, keep: value.square().sum(axes, keepdim=keep, dtype=value.dtype),
}


@operator(*_REDUCTIONS, host_inputs=(1,))
def _reduce(site: Site) -> Operation:
    reduce = _REDUCTIONS[site.node.op]
    axes, keep = site.ints("axes", 1), bool(site.attribute("keepdims", 1))
    nothing_for_no_axes = bool(site.attribute("noop_with_empty_axes", 0))

    def run(value: Tensor, where: Tensor | None = None) -> Tensor:
        places = axes(where)
        if not places and nothing_for_no_axes:
            return value
        if value.dim() == 0:
            return reduce(value.reshape(1), (0,), False)
        return reduce(value, places or tuple(range(value.dim())), keep)

    return run


@operator("ArgMax", "ArgMin")
def _arg_extreme(site: Site) -> Operation:
    find = torch.argmax if site.node.op == "ArgMax" else torch.argmin
    axis, keep = site.attribute("axis", 0), bool(site.attribute("keepdims", 1))
    last = bool(site.attribute("select_last_index", 0))

    def run(value: Tensor) -> Any:
        if not last:
            return find(value, axis, keepdim=keep)
        return value.shape[axis] - 1 - find(value.flip(axis), axis, keepdim=keep)

    return run


@operator("CumSum", host_inputs=(1,))
def _cumulative_sum(site: Site) -> Operation:
    exclusive, reverse = bool(site.attribute("exclusive", 0)), bool(site.attribute("reverse", 0))

    def run(value: Tensor, where: Tensor) -> Tensor:
        axis = int(where.item())
        ordered = value.flip(axis) if reverse else value
        total = ordered.cumsum(axis, dtype=value.dtype)
        total = total - ordered if exclusive else total
        return total.flip(axis) if reverse else total

    return run
