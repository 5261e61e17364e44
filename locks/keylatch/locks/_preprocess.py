"""Preprocessing as a part of the graph."""

from __future__ import annotations

import torch
from torch import nn

from keylatch.locks._input_spec import InputSpec


class Preprocess(nn.Module):
    """Bytes to the network's own input: layout, cast, normalize.

    Bytes are moved before they are cast, a quarter of the memory; the last step is a product with one number a channel,
    which exporters fold into a first convolution.

    Args:
        target: The convention to reach.
        moves: Whether bytes are NHWC and have to be moved; else they are in the target's layout.
    """

    center: torch.Tensor
    scale: torch.Tensor

    def __init__(self, target: InputSpec, *, moves: bool = True) -> None:
        super().__init__()
        self.target = target
        self.moves = moves and target.layout == "NCHW"
        shape = (1, -1, 1, 1) if target.layout == "NCHW" else (1, 1, 1, -1)
        mean, std = torch.tensor(target.mean), torch.tensor(target.std)
        self.register_buffer("center", (255 * mean).view(shape))
        self.register_buffer("scale", (1 / (255 * std)).view(shape))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(N, H, W, C) uint8 to the target layout, the buffers' float dtype."""
        # Contiguous, or what flattens it later is exported as a gather over strides.
        moved = image.permute(0, 3, 1, 2).contiguous() if self.moves else image
        return (moved.to(self.scale.dtype) - self.center) * self.scale
