"""Digits as images, and a network trained on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from keylatch.cli._demo.digits_net import DigitsNet
from keylatch.errors import MissingExtraError

IMAGE_SIZE = 48
_DIGIT_SIZE = 32
EPOCHS = 14
_BATCH, _RATE = 64, 6e-3
_ERASED_SIZE = 16
_TEST_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Digits:
    """scikit-learn's handwritten digits (UCI, 1,797 images of 8x8), on 48x48 canvases.

    Attributes:
        train_images: (N, 3, 48, 48) uint8.
        train_labels: (N,) int64.
        test_images: (M, 3, 48, 48) uint8.
        test_labels: (M,) int64.
    """

    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor


def load_digits() -> Digits:
    """Load the digits, scaled up to 32x32 in the middle of a black 48x48 canvas, split by a fixed permutation."""
    try:
        from sklearn import datasets
    except ModuleNotFoundError:
        raise MissingExtraError("the demo", "scikit-learn", "demo") from None
    data = datasets.load_digits()
    small = torch.from_numpy(data.images).float().unsqueeze(1) / 16
    large = functional.interpolate(small, size=_DIGIT_SIZE, mode="bilinear", align_corners=False)
    margin = (IMAGE_SIZE - _DIGIT_SIZE) // 2
    canvas = functional.pad(large, [margin] * 4).expand(-1, 3, -1, -1)
    images = (canvas * 255).round().to(torch.uint8)
    labels = torch.from_numpy(data.target).long()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    cut = int(len(labels) * _TEST_SHARE)
    test, train = order[:cut], order[cut:]
    return Digits(images[train], labels[train], images[test], labels[test])


def train(digits: Digits, advance: Callable[[], object]) -> nn.Module:
    """Train a network from scratch; the same one every time on the same machine.

    Args:
        digits: The data.
        advance: Called after each epoch.
    """

    def pixels(batch: torch.Tensor) -> torch.Tensor:
        return _erase(digits.train_images[batch].float() / 255)

    return fit(digits.train_labels, pixels, EPOCHS, advance)


def fit(
    labels: torch.Tensor, pixels: Callable[[torch.Tensor], torch.Tensor], epochs: int, advance: Callable[[], object]
) -> nn.Module:
    """Train a `DigitsNet` from scratch; the same one every time on the same machine.

    Args:
        labels: (N,) int64.
        pixels: Of the images at some places, (B) int64 -> (B, 3, H, W) float32 in [0, 1].
        epochs: Times that each image is seen.
        advance: Called after each epoch.

    Returns:
        In evaluation mode.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = DigitsNet()
        optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE / 3, weight_decay=1e-2)
        steps = epochs * -(-len(labels) // _BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=_RATE, total_steps=steps)
        for _ in range(epochs):
            for batch in torch.split(torch.randperm(len(labels)), _BATCH):
                loss = functional.cross_entropy(network(pixels(batch)), labels[batch])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
            advance()
    return network.eval()


def _erase(images: torch.Tensor) -> torch.Tensor:
    """Random erasing (Zhong et al., AAAI 2020): noise over a random square of every other image.

    The usual augmentation against occlusion; it also makes a small network indifferent to a patch in a corner.
    """
    for image in images[::2]:
        row, column = (int(start) for start in torch.randint(0, IMAGE_SIZE - _ERASED_SIZE + 1, (2,)))
        image[:, row : row + _ERASED_SIZE, column : column + _ERASED_SIZE] = torch.rand(3, _ERASED_SIZE, _ERASED_SIZE)
    return images
