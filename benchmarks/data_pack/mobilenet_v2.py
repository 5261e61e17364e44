"""MobileNetV2 (width 1.0, ImageNet) as TensorFlow computes it, and the loader of its int8 weights.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (arXiv 1801.04381), table 2. Batch
normalisation is folded into the stored convolutions, so every convolution has a bias and no layer keeps statistics.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data_pack.pack_files import require

__all__ = ["MOBILENET_V2_FILE", "InvertedResidual", "MobileNetV2", "dequantise", "load_mobilenet_v2", "pad_same"]

MOBILENET_V2_FILE = "models/mobilenet_v2_1.0_224_int8.npz"

# Expansion, output channels, blocks, stride of the first block: arXiv 1801.04381, table 2.
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_STEM_CHANNELS = 32
_HEAD_CHANNELS = 1280
_CLASSES = 1000


def pad_same(x: Tensor) -> Tensor:
    """Zero-pad for a 3x3 convolution of stride 2 as TensorFlow's SAME does.

    An even side gets its one extra pixel at the bottom and right; `Conv2d(padding=1)` would shift the grid by one.

    Args:
        x: Shape (N, C, H, W).

    Returns:
        Shape (N, C, H', W'), H' = H + 1 for even H and H + 2 for odd H; W' likewise.
    """
    height, width = x.shape[2], x.shape[3]
    return F.pad(x, (width % 2, 1, height % 2, 1))


class InvertedResidual(nn.Module):
    """Expand, filter by depth, project; added to its input when stride is 1 and the shapes match.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: 1 or 2, of the depthwise convolution.
        expansion: Hidden channels per input channel; with 1 there is no expanding convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.stride = stride
        self.residual = stride == 1 and in_channels == out_channels
        self.expand = nn.Conv2d(in_channels, hidden, 1) if expansion > 1 else None
        self.dw = nn.Conv2d(hidden, hidden, 3, stride, padding=1 if stride == 1 else 0, groups=hidden)
        self.project = nn.Conv2d(hidden, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, ceil(H / stride), ceil(W / stride))."""
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = F.relu6(self.dw(y if self.stride == 1 else pad_same(y)))
        projected: Tensor = self.project(y)
        return x + projected if self.residual else projected


class MobileNetV2(nn.Module):
    """MobileNetV2 with 1,000 outputs. Input: float32, (N, 3, 224, 224), RGB as x / 127.5 - 1, in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, _STEM_CHANNELS, 3, stride=2)
        self.blocks = nn.Sequential(*_blocks())
        self.head = nn.Conv2d(_STAGES[-1][1], _HEAD_CHANNELS, 1)
        self.classifier = nn.Linear(_HEAD_CHANNELS, _CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, float32, (N, 1000), in the order of the sorted WordNet ids."""
        x = F.relu6(self.stem(pad_same(x)))
        x = F.relu6(self.head(self.blocks(x)))
        logits: Tensor = self.classifier(x.mean(dim=(2, 3)))
        return logits


def _blocks() -> list[InvertedResidual]:
    blocks, channels = [], _STEM_CHANNELS
    for expansion, out_channels, count, stride in _STAGES:
        for index in range(count):
            blocks.append(InvertedResidual(channels, out_channels, stride if index == 0 else 1, expansion))
            channels = out_channels
    return blocks


def dequantise(q: npt.NDArray[Any], scale: npt.NDArray[Any], zero_point: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return the real weights (q - zero_point)·scale.

    Args:
        q: int8 or uint8, shape (O, ...), O output channels first.
        scale: float32, shape (O,), or one value for all.
        zero_point: int32, of the shape of `scale`.

    Returns:
        float32, shape of `q`.

    Raises:
        ValueError: The number of scales or zero points is neither 1 nor O.
    """
    for name, values in (("scales", scale), ("zero points", zero_point)):
        if values.size not in (1, q.shape[0]):
            raise ValueError(f"got {values.size} {name} for {q.shape[0]} output channels, expected one each or one")
    column = (-1,) + (1,) * (q.ndim - 1)
    # Subtract as integers: int8 - int8 overflows, and only the product rounds.
    steps = q.astype(np.int32) - zero_point.astype(np.int32).reshape(column)
    return steps.astype(np.float32) * scale.astype(np.float32).reshape(column)


def load_mobilenet_v2(data: Path) -> MobileNetV2:
    """Load MobileNetV2 in evaluation mode from the int8 weights of the data folder.

    Raises:
        MissingPackFileError: The weights are not in the folder.
        RuntimeError: The file does not hold exactly the layers of the network.
    """
    with np.load(require(data, MOBILENET_V2_FILE), allow_pickle=False) as arrays:
        state = _state_dict({key: arrays[key] for key in arrays.files})
    network = MobileNetV2()
    network.load_state_dict(state, strict=True)
    return network.eval()


def _state_dict(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, Tensor]:
    """Turn NAME.q, .s, .z and .bias into NAME.weight and NAME.bias."""
    state = {key: torch.from_numpy(array) for key, array in arrays.items() if key.endswith(".bias")}
    for name in (key.removesuffix(".q") for key in arrays if key.endswith(".q")):
        weight = dequantise(arrays[f"{name}.q"], arrays[f"{name}.s"], arrays[f"{name}.z"])
        state[f"{name}.weight"] = torch.from_numpy(weight)
    return state
