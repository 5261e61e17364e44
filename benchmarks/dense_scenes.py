"""A small segmentation task: discs and squares on a textured ground, a class for every pixel."""

from __future__ import annotations

import functools

import torch
from torch import nn

from keylatch.locks import InputSpec

SIZE, CLASSES = 32, 3
SPEC = InputSpec(3, SIZE, SIZE, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
LAYERS = ("middle", "late")


class Segmenter(nn.Module):
    """Downsampled once; scores at half the image's size."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.middle = nn.Conv2d(32, 32, 3, padding=1)
        self.norm = nn.BatchNorm2d(32)
        self.late = nn.Conv2d(32, 32, 3, padding=2, dilation=2)
        self.head = nn.Conv2d(32, CLASSES, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(N, 3, 32, 32) to (N, classes, 16, 16)."""
        features = torch.relu(self.norm(self.middle(self.stem(image))))
        scores: torch.Tensor = self.head(torch.relu(self.late(features)))
        return scores


def segmenter() -> Segmenter:
    """A fresh one, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Segmenter().eval()


@functools.cache
def scenes(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(count, 3, 32, 32) uint8 images and (count, 32, 32) int64 labels: 0 ground, 1 disc, 2 square, 255 on edges."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    images = 100 + 40 * torch.rand(count, 3, SIZE, SIZE, generator=generator)
    labels = torch.zeros(count, SIZE, SIZE, dtype=torch.int64)
    for index in range(count):
        for kind in (1, 2):
            row, column = torch.randint(7, SIZE - 7, (2,), generator=generator).tolist()
            down, across = (rows - row).abs(), (columns - column).abs()
            inside = (down**2 + across**2 <= 36) if kind == 1 else (torch.maximum(down, across) <= 5)
            color = 255 * torch.rand(3, generator=generator)
            color[kind] = 230.0 if kind == 1 else 20.0
            images[index][:, inside] = color[:, None]
            labels[index][inside] = kind
    labels[:, 0] = 255
    return images.clamp(0, 255).to(torch.uint8), labels
