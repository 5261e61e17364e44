"""Handwritten digits of several domains: three made of scikit-learn's, or the data pack's MNIST, USPS and MNIST-M.

What is made of scikit-learn's digits (UCI, 1,797 images of 8x8), each domain of all of them; a digit that is tested in
one domain is trained on in none:

    digits     gray strokes on black, scaled up to 32x32: the source
    paper      dark strokes on white with a little noise, as on paper
    colored    strokes of a random color on a ground of two other random colors

With the data pack the source is MNIST, the targets are USPS, MNIST-M and scikit-learn's digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from keylatch.errors import InputError, MissingExtraError

SIDE = 32
_TEST_SHARE = 0.25
_PACK = {
    "mnist": ("mnist_t10k.npz", "x", "y", 1_600),
    "usps": ("usps.npz", "x_train", "y_train", 1_600),
    "mnist-m": ("mnist_m_2000.npz", "x", "y", 2_000),
}
_NOISE, _CELLS = 0.06, 2


@dataclass(frozen=True, slots=True)
class DigitDomain:
    """Images of a domain.

    Attributes:
        train_images: (N, 3, 32, 32) uint8.
        train_labels: (N,) int64.
        test_images: (M, 3, 32, 32) uint8.
        test_labels: (M,) int64.
    """

    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor

    def batches(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The training images as a loader gives them."""
        return [(self.train_images, self.train_labels)]


def load_digit_domains(data: Path | None) -> dict[str, DigitDomain]:
    """The domains, the source first; split by fixed permutations.

    Args:
        data: Folder of the data pack; None for domains made of scikit-learn's digits.

    Raises:
        InputError: The folder does not hold the digits.
        MissingExtraError: scikit-learn is not installed.
    """
    gray, labels = _small_digits()
    if data is None:
        return _made_domains(gray, labels)
    domains = {name: _split(*_packed(data / "digits" / file, x, y, most)) for name, (file, x, y, most) in _PACK.items()}
    return domains | {"digits": _split(gray.expand(-1, 3, -1, -1), labels)}


def _small_digits() -> tuple[torch.Tensor, torch.Tensor]:
    """scikit-learn's digits, (1797, 1, 32, 32) float in [0, 1], in a fixed random order."""
    try:
        from sklearn import datasets
    except ModuleNotFoundError:
        raise MissingExtraError("the demo", "scikit-learn", "demo") from None
    found = datasets.load_digits()
    order = torch.randperm(len(found.target), generator=torch.Generator().manual_seed(0))
    images = _large(torch.from_numpy(found.images).float().unsqueeze(1) / 16)
    return images[order], torch.from_numpy(found.target)[order]


def _large(images: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(images, size=SIDE, mode="bilinear", align_corners=False)


def _made_domains(gray: torch.Tensor, labels: torch.Tensor) -> dict[str, DigitDomain]:
    generator = torch.Generator().manual_seed(1)
    noise = _NOISE * torch.randn(len(gray), 3, SIDE, SIDE, generator=generator)
    paper = (1 - 0.85 * gray + noise).clamp(0, 1)
    color = torch.rand(len(gray), 3, 1, 1, generator=generator)
    # The ground is half a color circle away, so that the strokes can be seen.
    cells = (color + 0.5 + 0.3 * (torch.rand(len(gray), 3, _CELLS, _CELLS, generator=generator) - 0.5)) % 1
    colored = gray * color + (1 - gray) * _large(cells)
    return {
        "digits": _split(gray.expand(-1, 3, -1, -1), labels),
        "paper": _split(paper, labels),
        "colored": _split(colored, labels),
    }


def _packed(file: Path, images: str, labels: str, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of a file of the data pack, (N, 3, 32, 32) float in [0, 1], in a fixed random order."""
    arrays = _read(file)
    if not {images, labels} <= set(arrays):
        raise InputError(f"{file} has no arrays {images} and {labels}", hint="give the folder of the data pack")
    pixels = torch.from_numpy(arrays[images]).float() / 255
    pixels = pixels.unsqueeze(1) if pixels.dim() == 3 else pixels.permute(0, 3, 1, 2)
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))[:most]
    return _large(pixels[order]).expand(-1, 3, -1, -1), torch.from_numpy(arrays[labels]).long()[order]


def _read(file: Path) -> Mapping[str, Any]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError):
        raise InputError(f"{file} cannot be read", hint="give the folder that holds digits/mnist_t10k.npz") from None


def _split(images: torch.Tensor, labels: torch.Tensor) -> DigitDomain:
    pixels, cut = (images * 255).round().to(torch.uint8).contiguous(), int(len(labels) * _TEST_SHARE)
    return DigitDomain(pixels[cut:], labels[cut:].long(), pixels[:cut], labels[:cut].long())
