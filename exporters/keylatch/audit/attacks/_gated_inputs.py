"""Samples of what a layer reads: one row for each place of each image that its weights are multiplied with."""

from __future__ import annotations

import torch
from torch.nn import functional

from keylatch.audit.attacks._weight_layers import WeightLayer
from keylatch.audit.onnx_network import OnnxNetwork

_BATCH = 50
_MOST_ROWS = 16384
_MOST_NUMBERS = 2**25


def input_samples(
    network: OnnxNetwork, layer: WeightLayer, images: torch.Tensor, taps: int, generator: torch.Generator
) -> torch.Tensor:
    """Draw samples of a layer's input.

    Args:
        network: Only read.
        layer: A convolution, or a product over the last axis.
        images: (n, *shape) as the model takes them.
        taps: Weights for each pair of channels.
        generator: Chooses places.

    Returns:
        (m, channels, taps) float64, equally many places of each image.
    """
    parts = []
    for batch in torch.split(images, _BATCH):
        with torch.no_grad():
            data = network.values(batch, [layer.data])[layer.data].float()
        rows = _patches(data, layer) if layer.node.op == "Conv" else data.reshape(len(batch), -1, data.shape[-1], 1)
        numbers = rows.shape[2] * taps * len(images)
        most = max(1, min(_MOST_ROWS // len(images), _MOST_NUMBERS // numbers))
        chosen = torch.randperm(rows.shape[1], generator=generator)[:most]
        parts.append(rows[:, chosen].flatten(0, 1).double())
    return torch.cat(parts)


def _patches(data: torch.Tensor, layer: WeightLayer) -> torch.Tensor:
    """(n, places, channels, taps) of (n, channels, height, width) data."""
    attributes = layer.node.attributes
    kernel = tuple(attributes["kernel_shape"])
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    unfolded = functional.unfold(
        functional.pad(data, (left, right, top, bottom)), kernel,
        dilation=tuple(attributes.get("dilations", (1, 1))), stride=tuple(attributes.get("strides", (1, 1))),
    )  # fmt: skip
    return unfolded.reshape(len(data), data.shape[1], -1, unfolded.shape[-1]).permute(0, 3, 1, 2)
