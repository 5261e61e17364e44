"""A public network with a fresh last layer, for a task with other classes."""

from __future__ import annotations

import torch
from torch import nn

from keylatch.audit._linear_layers import linear_layers
from keylatch.audit.onnx_network import OnnxNetwork
from keylatch.errors import InputError

_TOKENS_RANK, _MAP_RANK = 3, 4


class _WithHead(nn.Module):
    """A network up to one of its values, and a linear layer on that value."""

    def __init__(self, network: OnnxNetwork, value: str, head: nn.Linear) -> None:
        super().__init__()
        self.network, self.value, self.head = network, value, head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(_pooled(self.network.values(images, [self.value])[self.value]))
        return scores


def with_classes(network: OnnxNetwork, images: torch.Tensor, classes: int) -> nn.Module:
    """Replace the last linear layer or convolution by a linear one that starts at zero.

    Args:
        network: The network; it becomes part of the result.
        images: (n, *shape) to find out the number of features with; one is enough.
        classes: Number of the new layer's outputs.

    Raises:
        InputError: It has no such layer.
    """
    layers = linear_layers(network)
    if not layers:
        raise InputError("the public base has no linear layer to replace", hint="give a base with as many classes")
    value = layers[-1].node.inputs[0]
    with torch.no_grad():
        features = _pooled(network.values(images[:1], [value])[value]).shape[1]
    head = nn.Linear(features, classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return _WithHead(network, value, head)


def _pooled(features: torch.Tensor) -> torch.Tensor:
    """(n, features) of maps (n, features, h, w) and tokens (n, tokens, features), by their means."""
    if features.ndim == _MAP_RANK:
        return features.mean((2, 3))
    return features.mean(1) if features.ndim == _TOKENS_RANK else features.flatten(1)
