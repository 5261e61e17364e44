"""VGG-11 with batch normalization (arXiv 1409.1556, configuration A), a quarter as wide, for 32x32 pixels."""

from __future__ import annotations

import torch
from torch import nn

_LAYOUT = ((1,), (2,), (4, 4), (8, 8), (8, 8))  # channels of each stage's convolutions, in units of the width
WIDTH = 16  # 64 in the paper


class NarrowVgg(nn.Module):
    """Takes (N, 3, 32, 32) float32 and gives (N, 10) logits.

    Args:
        width: Channels of the first layer.
    """

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        before, stages = 3, []
        for stage in _LAYOUT:
            layers: list[nn.Module] = []
            for factor in stage:
                after = factor * width
                layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
                before = after
            stages.append(nn.Sequential(*layers, nn.MaxPool2d(2)))
        self.features = nn.Sequential(*stages)
        self.classifier = nn.Sequential(
            nn.Linear(before, 4 * width),
            nn.ReLU(),
            nn.Linear(4 * width, 4 * width),
            nn.ReLU(),
            nn.Linear(4 * width, 10),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Compute logits."""
        logits: torch.Tensor = self.classifier(self.features(image).flatten(1))
        return logits
