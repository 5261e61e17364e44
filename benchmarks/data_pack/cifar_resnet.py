"""The CIFAR-10 ResNets with shortcuts without parameters, and the loader of their weights.

He et al., "Deep Residual Learning for Image Recognition" (arXiv 1512.03385), section 4.2, option A: where the shape
changes, the shortcut takes every other pixel and pads the new channels with zeros. Batch normalisation stays a layer.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data_pack.pack_files import require

__all__ = ["RESNET20_FILE", "RESNET56_FILE", "BasicBlock", "CifarResNet", "load_resnet20", "load_resnet56"]

RESNET20_FILE = "models/cifar10_resnet20-12fca82f.th"
RESNET56_FILE = "models/cifar10_resnet56-4bfd9763.th"

_WIDTHS = (16, 32, 64)
_CLASSES = 10
# The networks were trained in DataParallel, which prefixes every key.
_KEY_PREFIX = "module."


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, each batch-normalised, added to the shortcut.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output: `in_channels`, or twice as many with stride 2.
        stride: 1 or 2, of the first convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.added_channels = out_channels - in_channels
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.shortcut(x))

    def shortcut(self, x: Tensor) -> Tensor:
        """Return `x` in the shape of the output: option A, half of the new channels before and half after the old."""
        if self.stride == 1:
            return x
        half = self.added_channels // 2
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, half))


class CifarResNet(nn.Module):
    """A ResNet of 6n + 2 layers with 10 outputs.

    Input: float32, (N, 3, 32, 32), RGB as (x / 255 - mean) / std with the ImageNet mean and std, about [-2.2, 2.7].

    Args:
        blocks: Blocks a stage, n: 3 for ResNet-20, 9 for ResNet-56.
    """

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, _WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(_WIDTHS[0])
        self.layer1 = _stage(_WIDTHS[0], _WIDTHS[0], blocks)
        self.layer2 = _stage(_WIDTHS[0], _WIDTHS[1], blocks)
        self.layer3 = _stage(_WIDTHS[1], _WIDTHS[2], blocks)
        self.linear = nn.Linear(_WIDTHS[2], _CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, float32, (N, 10), classes in alphabetical order."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits


def _stage(in_channels: int, out_channels: int, blocks: int) -> nn.Sequential:
    first = BasicBlock(in_channels, out_channels, stride=out_channels // in_channels)
    return nn.Sequential(first, *(BasicBlock(out_channels, out_channels, stride=1) for _ in range(blocks - 1)))


def load_resnet20(data: Path) -> CifarResNet:
    """Load ResNet-20 in evaluation mode from the data folder; raises as `load_resnet56` does."""
    return _load(data, RESNET20_FILE, blocks=3)


def load_resnet56(data: Path) -> CifarResNet:
    """Load ResNet-56 in evaluation mode from the data folder.

    Raises:
        MissingPackFileError: The weights are not in the folder.
        RuntimeError: The file does not hold exactly the parameters and statistics of the network.
    """
    return _load(data, RESNET56_FILE, blocks=9)


def _load(data: Path, file: str, blocks: int) -> CifarResNet:
    # map_location: the tensors were saved on a GPU.
    checkpoint = torch.load(require(data, file), map_location="cpu", weights_only=True)
    state = {key.removeprefix(_KEY_PREFIX): value for key, value in checkpoint["state_dict"].items()}
    network = CifarResNet(blocks)
    # Strict although the file has no num_batches_tracked: torch adds it to a state without version metadata.
    network.load_state_dict(state, strict=True)
    return network.eval()
