"""Images with natural statistics, made from scratch: "dead leaves".

Overlapping shapes of random color whose radius r has density r^-3 share the edges, scale invariance and power spectrum
of photographs (Lee, Mumford and Huang, IJCV 2001); networks see them much as they see photographs (Baradad et al.,
arXiv 2106.05963). They stand in for calibration images when there are none.
"""

from __future__ import annotations

import functools
from typing import Any, TypeAlias

import numpy as np
import torch

from keylatch.locks._randomness import SeededDraws

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

SHAPES = 400
_CHROMA = 0.3  # how far the channels of a shape differ; photographs are mostly gray
_SLOPE = 0.6  # shading across a shape, in units of the pixel range
_SMALLEST, _LARGEST = 0.02, 0.5  # radius, in units of the shorter side


def sample_images(count: int, channels: int, height: int, width: int) -> torch.Tensor:
    """Draw dead-leaves images; always the same ones.

    Returns:
        (count, channels, height, width) uint8.
    """
    return _draw(count, channels, height, width).clone()


@functools.lru_cache(maxsize=4)  # locking and proving a network ask for a few sets, which take as long as a small lock
def _draw(count: int, channels: int, height: int, width: int) -> torch.Tensor:
    draws = SeededDraws(bytes(32), "sample images")
    grounds = draws.uniform(count, channels, 1, 1).float().numpy()
    images = np.broadcast_to(grounds, (count, channels, height, width)).copy()
    for image in images:
        radii = _radii(draws) * min(height, width)
        centers = draws.uniform(SHAPES, 2) * torch.tensor([height, width])
        shades = (draws.uniform(SHAPES, 1) + _CHROMA * (draws.uniform(SHAPES, channels) - 0.5)).float().numpy()
        slopes = ((draws.uniform(SHAPES, 2) - 0.5).float() * _SLOPE).numpy()
        for radius, center, shade, slope in zip(radii.tolist(), centers.tolist(), shades, slopes, strict=True):
            _paint(image, radius, center, shade, slope)
    return torch.from_numpy((images.clip(0, 1) * 255).round().astype(np.uint8))


def _paint(image: Array, radius: float, center: list[float], shade: Array, slope: Array) -> None:
    """Paint a shaded disk into a (C, H, W) float32 image; in NumPy, whose calls on a few pixels cost a quarter."""
    _, height, width = image.shape
    top, left = max(0, int(center[0] - radius)), max(0, int(center[1] - radius))
    bottom, right = min(height, int(center[0] + radius) + 2), min(width, int(center[1] + radius) + 2)
    rows = np.arange(top, bottom, dtype=np.float32).reshape(-1, 1)
    columns = np.arange(left, right, dtype=np.float32)
    inside = (rows - center[0]) ** 2 + (columns - center[1]) ** 2 <= radius**2
    ramp = slope[0] * (rows / height - 0.5) + slope[1] * (columns / width - 0.5)
    np.copyto(image[:, top:bottom, left:right], shade.reshape(-1, 1, 1) + ramp, where=inside)


def _radii(draws: SeededDraws) -> torch.Tensor:
    # Inverse of the cumulative distribution of a density proportional to r^-3 between the two bounds.
    low, high = _LARGEST**-2, _SMALLEST**-2
    return (low + draws.uniform(SHAPES) * (high - low)) ** -0.5
