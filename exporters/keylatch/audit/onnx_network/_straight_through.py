"""Gradients through thresholds and rounding: the value is the exact one, the derivative that of something smooth.

    a >= b, a > b, …    that of sigmoid(2 (a - b) / r), where r is the root mean square of a - b over the whole tensor
    Sign(a)             that of tanh(a / r), with r of a
    Round, Floor, Ceil  1
    Clip                1; but its own for one-sided limits and 0 … 6, which are activations and not conversions

A comparison gives 0.0 or 1.0 then, not a truth value. Logic, `Where` and `Cast` take it: Where(c, a, b) has the
derivative of c a + (1 - c) b (Bengio et al. 2013, section 4; arXiv 1308.3432).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_STEEPNESS = 2.0


def with_gradient_of(value: Tensor, smooth: Tensor) -> Tensor:
    """A value with the derivative of something else, of the same shape."""
    return value.detach() + (smooth - smooth.detach())


def threshold(compare: Callable[[Tensor, Tensor], Tensor], greater: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """A comparison of floats that gives 0.0 or 1.0 with a sigmoid's gradient; of others, what it gives.

    Args:
        compare: The exact comparison.
        greater: Whether it becomes true as the first operand grows.
    """

    def run(left: Tensor, right: Tensor) -> Tensor:
        hard = compare(left, right)
        if not (torch.is_floating_point(left) or torch.is_floating_point(right)):
            return hard
        gap = left - right if greater else right - left
        smooth = torch.sigmoid(gap * (_STEEPNESS / _scale(gap)))
        return with_gradient_of(hard.to(gap.dtype), smooth)

    return run


def sign(value: Tensor) -> Tensor:
    """-1, 0 or 1, with a hyperbolic tangent's gradient."""
    return with_gradient_of(torch.sign(value), torch.tanh(value / _scale(value)))


def passing(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A function that is applied, and differentiated as if it were the identity."""
    return lambda value: with_gradient_of(function(value), value) if value.is_floating_point() else function(value)


def choose(condition: Tensor, chosen: Tensor, other: Tensor) -> Tensor:
    """Where; with a condition of 0.0 and 1.0 it has a gradient with respect to the condition."""
    if not condition.is_floating_point():
        return torch.where(condition, chosen, other)
    result = torch.where(condition > 0.5, chosen, other)
    if not result.is_floating_point():
        return result
    # The gap is left out of the value: infinite entries, as in attention masks, would make it NaN.
    gap = torch.nan_to_num((chosen - other).detach(), 0.0, 0.0, 0.0)
    return result + (condition - condition.detach()) * gap


def _scale(value: Tensor) -> Tensor:
    size = value.detach().float().square().mean().sqrt()
    return size.clamp(min=torch.finfo(torch.float32).tiny).to(value.dtype)
