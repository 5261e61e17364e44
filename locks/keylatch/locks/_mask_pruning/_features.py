"""What a network's last linear layer reads."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def penultimate(network: nn.Module, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and scores of images; differentiable.

    Args:
        network: A classifier.
        inputs: (N, ...), normalized.

    Returns:
        (N, d) features: the input of the last linear layer that runs, the scores themselves if there is none; and the
        (N, classes) scores.
    """
    read: list[torch.Tensor] = []

    def note(_: nn.Module, given: tuple[Any, ...]) -> None:
        read.append(given[0])

    layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        scores: torch.Tensor = network(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    features = read[-1] if read and len(read[-1]) == len(inputs) else scores
    return features.flatten(1), scores
