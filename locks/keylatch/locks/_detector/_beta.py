"""The regularized incomplete beta function, in logarithms: the chances here are far below what a float can hold."""

from __future__ import annotations

import math

import torch

_MAX_TERMS = 5000  # the fraction needs about sqrt(max(a, b)) of them
_PRECISION = 1e-14
_SMALLEST = 1e-300  # stands for a denominator of zero (Lentz's method, as modified by Thompson and Barnett)


def log_incomplete_beta(x: torch.Tensor, a: float, b: float) -> torch.Tensor:
    """The logarithm of I_x(a, b).

    By its continued fraction (DLMF 8.17.22) where that converges fast, else by I_x(a, b) = 1 - I_(1-x)(b, a).

    Args:
        x: Any shape, values in [0, 1].
        a: Positive.
        b: Positive.

    Returns:
        float64, the shape of `x`; -inf at 0.
    """
    x = x.to(torch.float64)
    direct = x <= (a + 1) / (a + b + 2)
    zero = torch.zeros_like(x)
    lower = _log_by_fraction(torch.where(direct, x, zero), a, b)
    upper = _log_by_fraction(torch.where(direct, zero, 1 - x), b, a)
    return torch.where(direct, lower, torch.log1p(-upper.exp()))


def _log_by_fraction(x: torch.Tensor, a: float, b: float) -> torch.Tensor:
    log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    return a * x.log() + b * torch.log1p(-x) - log_beta - math.log(a) + _fraction(x, a, b).log()


def _fraction(x: torch.Tensor, a: float, b: float) -> torch.Tensor:
    """The continued fraction by Lentz's method, two terms a turn."""
    upper = torch.ones_like(x)
    lower = 1 / _nonzero(1 - (a + b) * x / (a + 1))
    value = lower
    for term in range(1, _MAX_TERMS):
        even = term * (b - term) / ((a + 2 * term - 1) * (a + 2 * term))
        odd = -(a + term) * (a + b + term) / ((a + 2 * term) * (a + 2 * term + 1))
        for factor in (even, odd):
            lower = 1 / _nonzero(1 + factor * x * lower)
            upper = _nonzero(1 + factor * x / upper)
            value = value * lower * upper
        if bool(((lower * upper - 1).abs() < _PRECISION).all()):
            break
    return value


def _nonzero(value: torch.Tensor) -> torch.Tensor:
    return torch.where(value.abs() < _SMALLEST, torch.full_like(value, _SMALLEST), value)
