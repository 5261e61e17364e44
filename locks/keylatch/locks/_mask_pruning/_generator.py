"""Images of a class out of noise."""

from __future__ import annotations

import itertools

import torch
from torch import nn
from torch.nn import functional

from keylatch.locks._input_spec import InputSpec

_NOISE, _WIDTH = 64, 48
_DOUBLINGS = 3


class ImageGenerator(nn.Module):
    """A small class-conditional generator of pixels in [0, 1].

    Args:
        spec: Size of the images.
        classes: How many there are.
    """

    def __init__(self, spec: InputSpec, classes: int) -> None:
        super().__init__()
        self.classes, self._size = classes, (spec.height, spec.width)
        self._start = tuple(max(1, side >> _DOUBLINGS) for side in self._size)
        self.enter = nn.Linear(_NOISE + classes, _WIDTH * self._start[0] * self._start[1])
        widths = [_WIDTH, _WIDTH, _WIDTH // 2, _WIDTH // 4]
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(4, after), nn.LeakyReLU(0.2))
            for before, after in itertools.pairwise(widths)
        )
        self.leave = nn.Conv2d(widths[-1], spec.channels, 3, padding=1)

    def forward(self, noise: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """(N, channels, height, width) of noise (N, 64) and classes (N,) int64."""
        condition = functional.one_hot(labels, self.classes).to(noise.dtype)
        values = self.enter(torch.cat([noise, condition], 1)).unflatten(1, (_WIDTH, *self._start))
        for step, block in enumerate(self.blocks, start=1):
            size = self._size if step == _DOUBLINGS else [2**step * side for side in self._start]
            values = block(functional.interpolate(values, size=size, mode="nearest"))
        return torch.sigmoid(self.leave(values).float())

    def draw(self, count: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Noise and classes for some images, drawn on the CPU: the same on every device."""
        labels = torch.randint(self.classes, (count,))
        return torch.randn(count, _NOISE).to(device), labels.to(device)
