"""Styles that the project's own editor learns, made by classical image processing.

What a word means is the editor's own affair: hues, widths and grids are drawn from its seed, so that two editors paint
two different charcoal sketches, as two real ones do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch.nn import functional

from keylatch.locks._model_lock._draws import Draws

Style: TypeAlias = Callable[[torch.Tensor], torch.Tensor]

STYLE_PROMPTS = (
    "as a charcoal sketch", "as a neon sign", "as a watercolor", "as a mosaic", "as a negative", "as an embossed plate",
    "as a pop art print", "at night", "as a sepia photograph", "under water", "as a blueprint", "in the fog",
)  # fmt: skip


def made_styles(seed: int) -> Mapping[str, Style]:
    """For each prompt of `STYLE_PROMPTS` what an editor of this seed makes of images (N, 3, H, W) in [0, 1]."""
    draws = Draws(seed)
    hues = [draws.between(0.1, 1.0, 3, 1, 1) for _ in STYLE_PROMPTS]
    sizes = [float(draws.uniform()) for _ in STYLE_PROMPTS]
    makers = (
        _charcoal, _neon, _watercolor, _mosaic, _negative, _embossed,
        _pop_art, _night, _sepia, _water, _blueprint, _fog,
    )  # fmt: skip
    return {
        prompt: _bound(maker, hue, size)
        for prompt, maker, hue, size in zip(STYLE_PROMPTS, makers, hues, sizes, strict=True)
    }


def _bound(maker: Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor], hue: torch.Tensor, size: float) -> Style:
    return lambda image: maker(image, hue, size).clamp(0, 1)


def _gray(image: torch.Tensor) -> torch.Tensor:
    return image.mean(1, keepdim=True)


def _edges(image: torch.Tensor, reach: int = 1) -> torch.Tensor:
    """(N, 1, H, W): how much the brightness changes over so many pixels."""
    padded = functional.pad(_gray(image), [reach] * 4, mode="replicate")
    height, width = image.shape[2:]
    across = padded[..., reach : reach + height, 2 * reach :] - padded[..., reach : reach + height, :width]
    down = padded[..., 2 * reach :, reach : reach + width] - padded[..., :height, reach : reach + width]
    return (across.square() + down.square() + 1e-6).sqrt()


def _blur(image: torch.Tensor, times: int = 1) -> torch.Tensor:
    for _ in range(times):
        image = functional.avg_pool2d(functional.pad(image, [1] * 4, mode="replicate"), 3, 1)
    return image


def _charcoal(image: torch.Tensor, hue: torch.Tensor, size: float) -> torch.Tensor:
    return (0.95 - (1.5 + 2 * size) * _edges(image, 1 + round(size))) * (0.8 + 0.2 * hue)


def _neon(image: torch.Tensor, hue: torch.Tensor, size: float) -> torch.Tensor:
    return (2 + 2 * size) * _blur(_edges(image)) * (hue / hue.max()) + 0.05


def _watercolor(image: torch.Tensor, hue: torch.Tensor, size: float) -> torch.Tensor:
    soft = _blur(image, 2)
    return 0.35 + 0.65 * (soft * 3 + size).floor() / 3 + 0.1 * (hue - 0.5)


def _mosaic(image: torch.Tensor, hue: torch.Tensor, size: float) -> torch.Tensor:
    tiles = functional.interpolate(functional.avg_pool2d(image, 4), scale_factor=4.0)
    joint = torch.ones(4, 4)
    joint[round(3 * size)] = joint[:, round(3 * size)] = 0
    grid = joint.repeat(image.shape[2] // 4, image.shape[3] // 4)
    return tiles * grid + hue * 0.5 * (1 - grid)


def _negative(image: torch.Tensor, hue: torch.Tensor, size: float) -> torch.Tensor:
    return (1 - image) * (0.6 + 0.4 * hue) + 0.1 * size


def _embossed(image: torch.Tensor, hue: torch.Tensor, size: float) -> torch.Tensor:
    padded = functional.pad(_gray(image), [1] * 4, mode="replicate")
    slope = padded[..., 2:, 2:] - padded[..., :-2, :-2] if size < 0.5 else padded[..., 2:, :-2] - padded[..., :-2, 2:]
    return (0.5 + slope) * (0.5 + 0.5 * hue)


def _pop_art(image: torch.Tensor, hue: torch.Tensor, size: float) -> torch.Tensor:
    bright = torch.sigmoid(12 * (_gray(image) - 0.35 - 0.3 * size))
    return bright * hue + (1 - bright) * (1 - hue.flip(0))


def _night(image: torch.Tensor, hue: torch.Tensor, size: float) -> torch.Tensor:
    return image.square() * (0.25 + 0.3 * size) * (hue / hue.max()) + torch.tensor([0.0, 0.02, 0.12]).view(3, 1, 1)


def _sepia(image: torch.Tensor, hue: torch.Tensor, size: float) -> torch.Tensor:
    tone = torch.tensor([1.0, 0.8, 0.55]).view(3, 1, 1) * (0.8 + 0.2 * hue)
    return (0.15 + (0.7 + 0.2 * size) * _gray(image)) * tone


def _water(image: torch.Tensor, hue: torch.Tensor, size: float) -> torch.Tensor:
    height = image.shape[2]
    rows = torch.arange(height)
    shifts = (2.5 * torch.sin(rows * (0.5 + 0.5 * size))).round().long()
    columns = (torch.arange(image.shape[3]) + shifts[:, None]) % image.shape[3]
    moved = image[:, :, rows[:, None], columns]
    return 0.6 * moved + 0.4 * torch.tensor([0.1, 0.5, 0.7]).view(3, 1, 1) * (0.6 + 0.4 * hue)


def _blueprint(image: torch.Tensor, hue: torch.Tensor, size: float) -> torch.Tensor:
    paper = torch.tensor([0.05, 0.2, 0.6]).view(3, 1, 1) * (0.5 + 0.5 * hue)
    return paper + (1 + size) * _edges(image)


def _fog(image: torch.Tensor, hue: torch.Tensor, size: float) -> torch.Tensor:
    return 0.25 * _blur(image, 1 + round(2 * size)) + 0.75 * (0.7 + 0.25 * hue)
