"""Comparisons, logic, choices and casts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from keylatch.audit.onnx_network import _straight_through as straight
from keylatch.audit.onnx_network._arithmetic import with_numbers
from keylatch.audit.onnx_network._operator import Operation, Site, elementwise, operator


def _comparison(compare: Callable[[Any, Any], Any], *, greater: bool) -> Callable[[Site], Operation]:
    surrogate = straight.threshold(compare, greater)
    return lambda site: surrogate if site.straight_through else with_numbers(site, _either_way(compare))


def _either_way(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda a, b: compare(a if isinstance(a, Tensor) else torch.as_tensor(a, dtype=b.dtype, device=b.device), b)


operator("GreaterOrEqual")(_comparison(torch.ge, greater=True))
operator("Greater")(_comparison(torch.gt, greater=True))
operator("LessOrEqual")(_comparison(torch.le, greater=False))
operator("Less")(_comparison(torch.lt, greater=False))


@operator("Equal")
def _equal(site: Site) -> Operation:
    return with_numbers(site, _either_way(torch.eq))


def _not(value: Tensor) -> Tensor:
    return 1 - value if value.is_floating_point() else torch.logical_not(value)


def _and(a: Tensor, b: Tensor) -> Tensor:
    return a * b if a.is_floating_point() or b.is_floating_point() else torch.logical_and(a, b)


def _or(a: Tensor, b: Tensor) -> Tensor:
    if not (a.is_floating_point() or b.is_floating_point()):
        return torch.logical_or(a, b)
    return a + b - _and(a, b) if a.is_floating_point() else b + a - _and(a, b)


def _xor(a: Tensor, b: Tensor) -> Tensor:
    if not (a.is_floating_point() or b.is_floating_point()):
        return torch.logical_xor(a, b)
    return (a if a.is_floating_point() else a.to(b.dtype)) + b - 2 * _and(a, b)


# Floats are surrogates of truth values (`_straight_through`).
elementwise({"Not": _not, "And": _and, "Or": _or, "Xor": _xor, "Where": straight.choose})


@operator("Cast")
def _cast(site: Site) -> Operation:
    dtype = site.dtype(site.attribute("to"))
    if site.straight_through and dtype == torch.bool:
        return lambda value: value if _is_surrogate(value) else value.to(dtype)
    return lambda value: value.to(dtype)


def _is_surrogate(value: Tensor) -> bool:
    return value.is_floating_point() and bool(((value == 0) | (value == 1)).all())


@operator("CastLike")
def _cast_like(_site: Site) -> Operation:
    return lambda value, like: value.to(like.dtype)


@operator("Identity")
def _identity(_site: Site) -> Operation:
    return lambda value: value


@operator("Dropout")
def _dropout(site: Site) -> Operation:
    if site.wants(1) or len(site.node.outputs) > 1:
        return lambda value, *_: (value, torch.ones_like(value, dtype=torch.bool))
    return lambda value, *_: value
