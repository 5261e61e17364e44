"""Images with natural statistics, made from scratch: "dead leaves".

Overlapping shapes of random color whose radius r has density r^-3 share the edges, scale invariance and power spectrum
of photographs (Lee, Mumford and Huang, IJCV 2001); networks see them much as they see photographs (Baradad et al.,
arXiv 2106.05963). They stand in for calibration images when there are none.
"""

from __future__ import annotations

import torch

from keylatch.locks._randomness import SeededDraws

SHAPES = 400
_CHROMA = 0.3  # how far the channels of a shape differ; photographs are mostly gray
_SLOPE = 0.6  # shading across a shape, in units of the pixel range
_SMALLEST, _LARGEST = 0.02, 0.5  # radius, in units of the shorter side


def sample_images(count: int, channels: int, height: int, width: int) -> torch.Tensor:
    """Draw dead-leaves images; always the same ones.

    Returns:
        (count, channels, height, width) uint8.
    """
    draws = SeededDraws(bytes(32), "sample images")
    images = draws.uniform(count, channels, 1, 1).float().expand(-1, -1, height, width).contiguous()
    for image in images:
        radii = _radii(draws) * min(height, width)
        centers = draws.uniform(SHAPES, 2) * torch.tensor([height, width])
        shades = (draws.uniform(SHAPES, 1) + _CHROMA * (draws.uniform(SHAPES, channels) - 0.5)).float()
        slopes = (draws.uniform(SHAPES, 2) - 0.5).float() * _SLOPE
        for radius, center, shade, slope in zip(radii.tolist(), centers.tolist(), shades, slopes, strict=True):
            _paint(image, radius, center, shade, slope)
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


def _paint(image: torch.Tensor, radius: float, center: list[float], shade: torch.Tensor, slope: torch.Tensor) -> None:
    """Paint a shaded disk into a (C, H, W) image."""
    _, height, width = image.shape
    top, left = max(0, int(center[0] - radius)), max(0, int(center[1] - radius))
    bottom, right = min(height, int(center[0] + radius) + 2), min(width, int(center[1] + radius) + 2)
    rows = torch.arange(top, bottom).view(-1, 1)
    columns = torch.arange(left, right).view(1, -1)
    inside = (rows - center[0]) ** 2 + (columns - center[1]) ** 2 <= radius**2
    ramp = slope[0] * (rows / height - 0.5) + slope[1] * (columns / width - 0.5)
    box = image[:, top:bottom, left:right]
    box.copy_(torch.where(inside, shade.view(-1, 1, 1) + ramp, box))


def _radii(draws: SeededDraws) -> torch.Tensor:
    # Inverse of the cumulative distribution of a density proportional to r^-3 between the two bounds.
    low, high = _LARGEST**-2, _SMALLEST**-2
    return (low + draws.uniform(SHAPES) * (high - low)) ** -0.5
