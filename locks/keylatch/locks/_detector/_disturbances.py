"""What happens to an image on its way to a network, with gradients: rounding to 8 bits, resizing, JPEG."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from keylatch.locks._randomness import SeededDraws

BLOCK = 8
LOWEST_QUALITY, HIGHEST_QUALITY = 40, 95
SMALLEST_SCALE, LARGEST_SCALE = 0.5, 1.5

# Quantization tables of ITU-T T.81, annex K.1, which libjpeg scales by its quality.
_LUMINANCE = """16 11 10 16 24 40 51 61  12 12 14 19 26 58 60 55  14 13 16 24 40 57 69 56  14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77  24 35 55 64 81 104 113 92  49 64 78 87 103 121 120 101  72 92 95 98 112 100 103 99"""
_CHROMINANCE = """17 18 24 47 99 99 99 99  18 21 26 66 99 99 99 99  24 26 56 99 99 99 99 99  47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99"""
# JFIF 1.02: R, G, B to Y, Cb, Cr.
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def round_to_bytes(pixels: torch.Tensor) -> torch.Tensor:
    """Round pixels in [0, 1] to 8 bits; the gradient passes straight through."""
    return pixels + ((pixels * 255).round() / 255 - pixels).detach()


def resize_and_back(pixels: torch.Tensor, scale: float) -> torch.Tensor:
    """Resize images, (N, C, H, W) in [0, 1], by a factor and back to their size, bilinear, 8 bits in between."""
    height, width = pixels.shape[2:]
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    small = round_to_bytes(F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True))
    back = F.interpolate(small, (height, width), mode="bilinear", align_corners=False, antialias=True)
    return round_to_bytes(back.clamp(0, 1))


def compress(pixels: torch.Tensor, quality: int) -> torch.Tensor:
    """JPEG without its lossless part: color transform, halved color resolution, blockwise DCT and quantization.

    Args:
        pixels: (N, C, H, W) in [0, 1]; of three channels the last two are color, others are coded as brightness each.
        quality: 1 to 100, as libjpeg scales its tables by.

    Returns:
        The decoded pixels, 8 bits; rounding passes gradients straight through.
    """
    bytes_ = pixels * 255
    if pixels.shape[1] != 3:
        decoded = _code_plane(bytes_ - 128, _table(_LUMINANCE, quality, pixels)) + 128
        return round_to_bytes((decoded / 255).clamp(0, 1))
    matrix = torch.tensor(_TO_YCC, dtype=pixels.dtype, device=pixels.device)
    planes = torch.einsum("ij,njhw->nihw", matrix, bytes_)
    brightness = _code_plane(planes[:, :1] - 128, _table(_LUMINANCE, quality, pixels)) + 128
    color = _code_color(planes[:, 1:], _table(_CHROMINANCE, quality, pixels))
    decoded = torch.einsum("ij,njhw->nihw", torch.linalg.inv(matrix), torch.cat((brightness, color), dim=1))
    return round_to_bytes((decoded / 255).clamp(0, 1))


def disturb(pixels: torch.Tensor, draws: SeededDraws) -> torch.Tensor:
    """One disturbance at random: only rounding, or resizing, or JPEG, or both.

    Args:
        pixels: (N, C, H, W) in [0, 1].
        draws: Chooses which, and how strong.
    """
    kind, scale, quality = draws.uniform(3).tolist()
    shown = round_to_bytes(pixels)
    if kind >= 0.5:
        shown = resize_and_back(shown, SMALLEST_SCALE + scale * (LARGEST_SCALE - SMALLEST_SCALE))
    if 0.25 <= kind < 0.5 or kind >= 0.75:
        shown = compress(shown, LOWEST_QUALITY + int(quality * (HIGHEST_QUALITY - LOWEST_QUALITY)))
    return shown


def _code_color(planes: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    height, width = planes.shape[2:]
    even = F.pad(planes, (0, width % 2, 0, height % 2), mode="replicate")
    coded = _code_plane(F.avg_pool2d(even, 2), table)
    return F.interpolate(coded, even.shape[2:], mode="bilinear", align_corners=False)[..., :height, :width]


def _code_plane(planes: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """DCT, quantize and invert blocks of 8 x 8; (N, C, H, W) around zero."""
    height, width = planes.shape[2:]
    padded = F.pad(planes, (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate")
    count, channels, tall, wide = padded.shape
    blocks = padded.reshape(count, channels, tall // BLOCK, BLOCK, wide // BLOCK, BLOCK).transpose(3, 4)
    transform = _cosines(planes)
    levels = transform @ blocks @ transform.T / table
    coded = transform.T @ ((levels + (levels.round() - levels).detach()) * table) @ transform
    return coded.transpose(3, 4).reshape(padded.shape)[..., :height, :width]


def _cosines(like: torch.Tensor) -> torch.Tensor:
    """The orthonormal DCT-II, (8, 8)."""
    steps = torch.arange(BLOCK, dtype=torch.float64)
    waves = torch.cos(math.pi / BLOCK * (steps + 0.5) * steps.view(-1, 1)) * math.sqrt(2 / BLOCK)
    waves[0] /= math.sqrt(2)
    return waves.to(like)


def _table(text: str, quality: int, like: torch.Tensor) -> torch.Tensor:
    percent = 5000 / quality if quality < 50 else 200 - 2 * quality
    steps = torch.tensor([int(step) for step in text.split()], dtype=torch.float64).view(BLOCK, BLOCK)
    return ((steps * percent + 50) / 100).floor().clamp(1, 255).to(like)
