"""Parts of diffusers that cannot be traced with a free batch, written so that they can."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional


class Upsample(nn.Module):
    """diffusers' Upsample2D without its branch for batches of 64 and more, which an old kernel once needed.

    Args:
        given: The Upsample2D; its weights are used, under their own names.
    """

    def __init__(self, given: Any) -> None:
        super().__init__()
        self.conv = given.conv if given.use_conv else None

    def forward(
        self, hidden_states: torch.Tensor, output_size: int | None = None, *_others: Any, **_named: Any
    ) -> torch.Tensor:
        """(N, C, H, W) to twice the size, or to the size that is given."""
        scale = 2.0 if output_size is None else None
        larger = functional.interpolate(hidden_states, size=output_size, scale_factor=scale, mode="nearest")
        result: torch.Tensor = larger if self.conv is None else self.conv(larger)
        return result


def make_traceable(network: nn.Module) -> None:
    """Replace such parts of a network, in place; it computes what it did, and its weights keep their names."""
    for module in network.modules():
        for name, child in list(module.named_children()):
            if type(child).__name__ == "Upsample2D" and _is_plain(child):
                setattr(module, name, Upsample(child))


def _is_plain(upsample: Any) -> bool:
    named = upsample.name == "conv"
    return named and upsample.norm is None and upsample.interpolate and not upsample.use_conv_transpose
