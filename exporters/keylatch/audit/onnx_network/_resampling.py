"""One axis of an image resized, as a matrix: ONNX operator Resize, for each of its many conventions."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sampling:
    """Attributes of Resize.

    Attributes:
        mode: ``nearest``, ``linear`` or ``cubic``.
        coordinates: The coordinate_transformation_mode.
        rounding: The nearest_mode.
        cubic: cubic_coeff_a.
        inside_only: exclude_outside.
        antialias: Whether kernels widen when an image shrinks.
    """

    mode: str
    coordinates: str
    rounding: str
    cubic: float
    inside_only: bool
    antialias: bool


@functools.lru_cache(maxsize=256)
def resampling_matrix(size: int, wanted: int, scale: float, how: Sampling) -> Tensor:
    """The matrix, (wanted, size) float64, that resizes an axis.

    Args:
        size: Places before.
        wanted: Places after.
        scale: As the graph gives it; it may differ a little from wanted / size.
        how: The convention.
    """
    matrix = torch.zeros(wanted, size, dtype=torch.float64)
    for row in range(wanted):
        place = _coordinate(row, size, wanted, scale, how.coordinates)
        if how.mode == "nearest":
            matrix[row, min(max(_round(place, how.rounding), 0), size - 1)] = 1.0
        else:
            _spread(matrix[row], place, scale, how)
    return matrix


def _coordinate(row: int, size: int, wanted: int, scale: float, mode: str) -> float:
    """Where an output place lies in the input; in float32, as runtimes compute it: rounding decides at borders."""
    place, factor = np.float32(row), np.float32(scale)
    if mode == "align_corners":
        return 0.0 if wanted == 1 else float(place * np.float32(size - 1) / np.float32(wanted - 1))
    if mode == "asymmetric":
        return float(place / factor)
    if mode == "pytorch_half_pixel" and wanted == 1:
        return 0.0
    centered = float((place + np.float32(0.5)) / factor - np.float32(0.5))
    if mode == "half_pixel_symmetric":
        return centered + size / 2 * (1 - wanted / (size * scale))
    return centered


def _round(place: float, mode: str) -> int:
    if mode == "floor":
        return math.floor(place)
    if mode == "ceil":
        return math.ceil(place)
    return math.ceil(place - 0.5) if mode == "round_prefer_floor" else math.floor(place + 0.5)


def _spread(row: Tensor, place: float, scale: float, how: Sampling) -> None:
    """Write the weights of the inputs around a place; those outside count for the edge, unless they are left out."""
    stretch = min(1.0, scale) if how.antialias else 1.0
    reach = (1.0 if how.mode == "linear" else 2.0) / stretch
    first, last = math.floor(place - reach) + 1, math.ceil(place + reach) - 1
    taps = {tap: _kernel((tap - place) * stretch, how) for tap in range(first, last + 1)}
    if how.inside_only:
        taps = {tap: weight for tap, weight in taps.items() if 0 <= tap < len(row)}
    total = sum(taps.values())
    for tap, weight in taps.items():
        row[min(max(tap, 0), len(row) - 1)] += weight / total


def _kernel(distance: float, how: Sampling) -> float:
    """Weight at a distance; cubic: Keys 1981, equation 4."""
    x, a = abs(distance), how.cubic
    if how.mode == "linear":
        return max(0.0, 1.0 - x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0
