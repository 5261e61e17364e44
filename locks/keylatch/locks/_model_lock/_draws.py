"""Public draws for made training data: seeded, on the CPU, apart from torch's global generator."""

from __future__ import annotations

import torch


class Draws:
    """A stream of draws; nothing secret.

    Args:
        seed: Its seed.
    """

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def uniform(self, *shape: int) -> torch.Tensor:
        """Uniform entries in [0, 1), float32."""
        return torch.rand(shape, generator=self.generator)

    def between(self, low: float, high: float, *shape: int) -> torch.Tensor:
        """Uniform entries in [low, high), float32."""
        return low + (high - low) * self.uniform(*shape)

    def normal(self, *shape: int) -> torch.Tensor:
        """Standard normal entries, float32."""
        return torch.randn(shape, generator=self.generator)
