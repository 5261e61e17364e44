"""Handwritten digits of four domains, as RGB images of 32x32 pixels, split by a fixed seed.

mnist: MNIST, 28x28 gray; the 10,000 test images are all that the data pack has. usps: USPS, 16x16 gray, with its own
split. mnist_m: MNIST-M, 32x32 RGB, digits on photographs, 2,000 images. digits: scikit-learn's (UCI), 8x8 gray.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from data_pack import LabelledImages
from data_pack.images import mnist, mnist_m, usps_test, usps_train

SIDE = 32
_LARGEST_SHIFT = 2
PACK_DOMAINS = ("mnist", "usps", "mnist_m")
THIRD_DOMAIN = "digits"
_TEST_IMAGES = {"mnist": 2_000, "mnist_m": 500, "digits": 500}


@dataclass(frozen=True, slots=True, eq=False)
class Labeled:
    """Images with classes.

    Attributes:
        images: (N, 3, 32, 32) uint8.
        labels: (N,) int64.
    """

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int) -> Labeled:
        """At most so many images; their order is random."""
        return Labeled(self.images[:count], self.labels[:count])

    def last(self, count: int) -> Labeled:
        """The last images."""
        return Labeled(self.images[-count:], self.labels[-count:])

    def loader(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """All in one batch."""
        return [(self.images, self.labels)]


@dataclass(frozen=True, slots=True, eq=False)
class Domain:
    """A domain.

    Attributes:
        train: To learn from.
        test: To measure on.
    """

    train: Labeled
    test: Labeled


def shifted(images: torch.Tensor) -> torch.Tensor:
    """Each image moved by up to two pixels, the edge repeated: the augmentation of every training here.

    Args:
        images: (N, C, H, W), any dtype; moves are drawn by torch's generator.
    """
    count, channels, height, width = images.shape
    rows, columns = (
        (torch.arange(side) + torch.randint(-_LARGEST_SHIFT, _LARGEST_SHIFT + 1, (count, 1))).clamp(0, side - 1)
        for side in (height, width)
    )
    image, channel = torch.arange(count).view(-1, 1, 1, 1), torch.arange(channels).view(1, -1, 1, 1)
    return images[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


def load_domains(data: Path) -> dict[str, Domain]:
    """All four domains."""
    domains = {name: _split(name, images) for name, images in _unsplit(data).items()}
    domains["usps"] = Domain(_shuffled(_as_color(usps_train(data))), _as_color(usps_test(data)))
    return domains


def _unsplit(data: Path) -> dict[str, Labeled]:
    from sklearn import datasets

    small = datasets.load_digits()
    pixels = (small.images * (255 / 16)).round().astype(np.uint8)[..., np.newaxis]
    return {
        "mnist": _as_color(mnist(data)),
        "mnist_m": _as_color(mnist_m(data)),
        "digits": _as_color(LabelledImages(pixels, small.target.astype(np.int64))),
    }


def _as_color(images: LabelledImages) -> Labeled:
    """Three channels, bilinearly resized."""
    pixels = torch.from_numpy(images.images).permute(0, 3, 1, 2).float()
    if pixels.shape[2:] != (SIDE, SIDE):
        pixels = functional.interpolate(pixels, size=SIDE, mode="bilinear", align_corners=False)
    color = pixels.round().clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
    return Labeled(color, torch.from_numpy(images.labels))


def _shuffled(images: Labeled) -> Labeled:
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return Labeled(images.images[order], images.labels[order])


def _split(name: str, images: Labeled) -> Domain:
    shuffled, count = _shuffled(images), _TEST_IMAGES[name]
    return Domain(shuffled.first(len(images) - count), shuffled.last(count))
