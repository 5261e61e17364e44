"""A small convolutional network for handwritten digits: plain PyTorch, knows nothing of locks."""

from __future__ import annotations

import torch
from torch import nn


def block(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    """Convolution, batch normalization, ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


class DigitsNet(nn.Module):
    """Takes (N, 3, 48, 48) float32 in [0, 1] and gives (N, 10) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(block(3, 32, 2), block(32, 64, 2))
        self.middle = nn.Sequential(nn.Conv2d(64, 64, 1), nn.ReLU(inplace=True), block(64, 128, 2))
        self.top = nn.Sequential(nn.Conv2d(128, 128, 1), nn.ReLU(inplace=True))
        self.classifier = nn.Linear(128, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Compute logits."""
        features = self.top(self.middle(self.stem(image)))
        logits: torch.Tensor = self.classifier(features.mean((2, 3)))
        return logits
