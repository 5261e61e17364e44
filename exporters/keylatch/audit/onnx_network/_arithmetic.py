"""Elementwise arithmetic."""

from __future__ import annotations

import functools
import operator as python
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from keylatch.audit.onnx_network import _straight_through as straight
from keylatch.audit.onnx_network._operator import Number, Operation, Site, elementwise, operator

elementwise(
    {
        "Abs": torch.abs, "Neg": torch.neg, "Sqrt": torch.sqrt, "Reciprocal": torch.reciprocal, "Exp": torch.exp,
        "Log": torch.log, "Sin": torch.sin, "Cos": torch.cos, "Tan": torch.tan, "Asin": torch.asin,
        "Acos": torch.acos, "Atan": torch.atan, "Sinh": torch.sinh, "Cosh": torch.cosh, "Asinh": torch.asinh,
        "Acosh": torch.acosh, "Atanh": torch.atanh, "Erf": torch.erf, "IsNaN": torch.isnan,
        "BitwiseAnd": torch.bitwise_and, "BitwiseOr": torch.bitwise_or, "BitwiseXor": torch.bitwise_xor,
        "BitwiseNot": torch.bitwise_not, "Det": torch.linalg.det,
    }
)  # fmt: skip
_LARGEST_ACTIVATION = 6.0


def with_numbers(site: Site, function: Callable[[Any, Any], Any]) -> Operation:
    """A function of two operands, a constant of one element given as a number.

    A number follows the type of the other operand and costs no broadcasting. The result has the rank that ONNX gives
    it: a constant of shape (1,) is not dropped if the other operand has rank 0.
    """
    left, right = site.scalar(0), site.scalar(1)
    if right is not None:
        rank = site.constants[1].dim()
        return lambda a, b: function(a, right) if a.dim() >= rank else function(a, b)
    if left is not None:
        rank = site.constants[0].dim()
        return lambda a, b: function(left, b) if b.dim() >= rank else function(a, b)
    return function


@operator("Add")
def _add(site: Site) -> Operation:
    return with_numbers(site, python.add)


@operator("Sub")
def _sub(site: Site) -> Operation:
    return with_numbers(site, python.sub)


@operator("Mul")
def _mul(site: Site) -> Operation:
    return with_numbers(site, python.mul)


@operator("Div")
def _div(site: Site) -> Operation:
    def divide(a: Any, b: Any) -> Any:
        tensor = a if isinstance(a, Tensor) else b
        return a / b if tensor.is_floating_point() else torch.div(torch.as_tensor(a), b, rounding_mode="trunc")

    return with_numbers(site, divide)


@operator("Pow")
def _pow(site: Site) -> Operation:
    exponent = site.scalar(1)
    if exponent is not None and site.constants[1].dim() == 0:
        return lambda base, _: torch.pow(base, exponent).to(base.dtype)
    return lambda base, power: torch.pow(base, power).to(base.dtype)


@operator("Mod")
def _mod(site: Site) -> Operation:
    return torch.fmod if site.attribute("fmod", 0) else torch.remainder


@operator("BitShift")
def _bit_shift(site: Site) -> Operation:
    left = site.attribute("direction") == "LEFT"
    return torch.bitwise_left_shift if left else torch.bitwise_right_shift


@operator("Min")
def _min(_site: Site) -> Operation:
    return lambda *values: functools.reduce(torch.minimum, values)


@operator("Max")
def _max(_site: Site) -> Operation:
    return lambda *values: functools.reduce(torch.maximum, values)


@operator("Sum")
def _sum(_site: Site) -> Operation:
    return lambda *values: functools.reduce(torch.add, values)


@operator("Mean")
def _mean(_site: Site) -> Operation:
    return lambda *values: functools.reduce(torch.add, values) / len(values)


@operator("Sign")
def _sign(site: Site) -> Operation:
    return straight.sign if site.straight_through else torch.sign


@operator("Round")
def _round(site: Site) -> Operation:
    return straight.passing(torch.round) if site.straight_through else torch.round


@operator("Floor")
def _floor(site: Site) -> Operation:
    return straight.passing(torch.floor) if site.straight_through else torch.floor


@operator("Ceil")
def _ceil(site: Site) -> Operation:
    return straight.passing(torch.ceil) if site.straight_through else torch.ceil


@operator("Clip")
def _clip(site: Site) -> Operation:
    low, high = _limit(site, "min", 1), _limit(site, "max", 2)

    def clip(value: Tensor, least: Tensor | None = None, most: Tensor | None = None) -> Tensor:
        lower, upper = least if low is None else low, most if high is None else high
        if lower is None and upper is None:
            return value
        if isinstance(lower, Tensor) != isinstance(upper, Tensor):
            lower = None if lower is None else torch.as_tensor(lower, dtype=value.dtype, device=value.device)
            upper = None if upper is None else torch.as_tensor(upper, dtype=value.dtype, device=value.device)
        return torch.clamp(value, lower, upper)

    known = low is not None and high is not None
    if site.straight_through and known and (low, high) != (0, _LARGEST_ACTIVATION):
        return lambda value, *_: straight.with_gradient_of(clip(value), value)
    return _hard_tanh(clip, low, high) if known and low <= high else clip


def _hard_tanh(clip: Operation, low: Number, high: Number) -> Operation:
    """The same values. Its derivative is one operation where that of `clamp` is four, half of a training step."""
    return lambda value, *_: F.hardtanh(value, low, high) if value.is_floating_point() else clip(value)


def _limit(site: Site, name: str, position: int) -> Any:
    """A limit that is known: an attribute before opset 11, a constant since."""
    fixed = site.attribute(name)
    return site.scalar(position) if fixed is None else fixed


@operator("IsInf")
def _is_inf(site: Site) -> Operation:
    negative, positive = site.attribute("detect_negative", 1), site.attribute("detect_positive", 1)
    if negative and positive:
        return torch.isinf
    return torch.isposinf if positive else torch.isneginf
