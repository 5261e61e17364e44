"""Batch-normalization statistics: what a network remembers of its training images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


def normalizations(network: nn.Module) -> list[nn.Module]:
    """Batch normalizations that carry running statistics."""
    layers = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    return [layer for layer in layers if layer.running_mean is not None]


@contextmanager
def distances_to_statistics(network: nn.Module) -> Iterator[list[torch.Tensor]]:
    """While it is open, each run notes how far what enters a normalization lies from its statistics.

    For each layer the mean over channels of (mu - mu0)² / var0 + (sigma / sigma0 - 1)², the scale-free form of what
    DeepInversion matches (arXiv 1912.08795, equation 4).

    Yields:
        A list that grows by one number for each normalization that runs; differentiable.
    """
    found: list[torch.Tensor] = []

    def note(layer: Any, given: tuple[torch.Tensor, ...]) -> None:
        values = given[0].float()
        axes = [axis for axis in range(values.dim()) if axis != 1]
        variance, mean = torch.var_mean(values, dim=axes, correction=0)
        scale = layer.running_var + layer.eps
        shift = (mean - layer.running_mean) ** 2 / scale
        spread = (((variance + layer.eps) / scale).sqrt() - 1) ** 2
        found.append((shift + spread).mean())

    hooks = [layer.register_forward_pre_hook(note) for layer in normalizations(network)]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
