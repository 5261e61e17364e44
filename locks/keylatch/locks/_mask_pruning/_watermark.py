"""Proof of ownership: the source with a secret watermark is the unauthorized domain (arXiv 2403.04149, section 4.4).

    mark = Watermark.draw()
    source, targets = mark.domains(images)
    learned = learn_domain_masks(network, spec, source=source, targets=targets)
    shipped = masked_model(network, learned.masks)
    verdict = verify_watermark(suspect, spec, mark, test_images)

The shipped network fails on images that carry the owner's watermark, and on no others.
"""

from __future__ import annotations

import copy
import secrets
from dataclasses import asdict, dataclass, replace
from typing import Any, Self, TypeAlias

import torch
from torch import nn

from keylatch.errors import LockError
from keylatch.locks._input_spec import InputSpec
from keylatch.locks._key_training_data import read_images
from keylatch.locks._mask_pruning._accuracy import accuracy_on
from keylatch.locks._mask_pruning._domains import Loader
from keylatch.locks._randomness import SEED_BYTES, SeededDraws
from keylatch.locks._training_device import training_device

Pairs: TypeAlias = list[tuple[torch.Tensor, torch.Tensor]]

STRENGTH = 0.2
_CELLS = 8  # of the pattern along each side: coarse enough for JPEG and resizing
_SOURCE_MARKS = 4
OTHER_MARKS = 19  # with none of them as low, p is 1/20


@dataclass(frozen=True, slots=True, repr=False)
class Watermark:
    """A secret pattern of brighter and darker cells, added to an image's pixels.

    Attributes:
        seed: 32 bytes, the secret.
        strength: What is added or subtracted, as a share of the pixel range.
    """

    seed: bytes
    strength: float = STRENGTH

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 1:
            raise LockError(f"strength is {self.strength}, expected a share in (0, 1]", hint=f"take {STRENGTH}")
        SeededDraws(self.seed, "watermark")  # refuses a seed of another size

    @classmethod
    def draw(cls, *, strength: float = STRENGTH, seed: bytes | None = None) -> Self:
        """A random watermark."""
        return cls(secrets.token_bytes(SEED_BYTES) if seed is None else seed, strength)

    def pattern(self, channels: int, height: int, width: int) -> torch.Tensor:
        """(channels, height, width) float32 of -strength and +strength."""
        signs = SeededDraws(self.seed, "watermark").signs(channels, min(_CELLS, height), min(_CELLS, width))
        cells = self.strength * signs.float()
        return nn.functional.interpolate(cells[None], size=(height, width), mode="nearest")[0]

    def marked(self, images: torch.Tensor) -> torch.Tensor:
        """Images with the watermark.

        Args:
            images: (N, C, H, W) uint8, or float in [0, 1].

        Returns:
            The same shape and dtype.
        """
        pattern = self.pattern(*images.shape[1:]).to(images.device)
        if images.dtype == torch.uint8:
            return (images.float() + 255 * pattern).round().clamp(0, 255).to(torch.uint8)
        return (images + pattern.to(images.dtype)).clamp(0, 1)

    def on(self, loader: Loader) -> Pairs:
        """The batches of a loader, marked."""
        return [(self.marked(images), labels) for images, labels in loader]

    def domains(self, loader: Loader) -> tuple[Pairs, dict[str, Pairs]]:
        """What `learn_domain_masks` takes: the source, and the watermarked source as a target.

        A few other watermarks belong to the source: the network is to fail on the owner's, not on any.
        """
        plain = [(images, labels) for images, labels in loader]
        draws = SeededDraws(self.seed, "source watermarks")
        others = [replace(self, seed=draws.bytes(SEED_BYTES)) for _ in range(_SOURCE_MARKS)]
        return [*plain, *(pair for other in others for pair in other.on(plain))], {"watermark": self.on(plain)}


@dataclass(frozen=True, slots=True)
class WatermarkVerdict:
    """A suspect network on watermarked images, top-1 in percent.

    Attributes:
        clean: Accuracy without a watermark.
        marked: With the owner's.
        other_marks: With each of several random watermarks of the same strength.
        p_value: Chance that a watermark drawn without knowledge of the network does as badly as the owner's: the share
            of watermarks, the owner's among them, that are at least as bad. Exact, because all are drawn alike.
    """

    clean: float
    marked: float
    other_marks: tuple[float, ...]
    p_value: float

    def to_json(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


def verify_watermark(
    suspect: nn.Module,
    spec: InputSpec,
    watermark: Watermark,
    images: Loader,
    *,
    others: int = OTHER_MARKS,
    device: str | torch.device | None = None,
) -> WatermarkVerdict:
    """Measure whether a network fails on images with the owner's watermark, and with no other.

    Args:
        suspect: The network.
        spec: Size and normalization of its images.
        watermark: The owner's.
        images: Held-out batches of pixels and labels.
        others: Random watermarks to compare with; the p-value is at least 1 / (others + 1).
        device: Where to compute; default the GPU if there is one.

    Raises:
        LockError: There are no images, they are of another size, or `others` is not positive.
    """
    if others < 1:
        raise LockError(f"others is {others}, expected 1 or more", hint=f"take {OTHER_MARKS}")
    where = training_device(device)
    network = copy.deepcopy(suspect).to(where).eval()
    data = read_images(images, spec, name="source domain's")

    def accuracy(mark: Watermark) -> float:
        return accuracy_on(network, spec, replace(data, images=mark.marked(data.images)), where)

    draws = SeededDraws(watermark.seed, "other watermarks")
    found = [accuracy(replace(watermark, seed=draws.bytes(SEED_BYTES))) for _ in range(others)]
    own = accuracy(watermark)
    as_bad = 1 + sum(other <= own for other in found)
    return WatermarkVerdict(accuracy_on(network, spec, data, where), own, tuple(found), as_bad / (others + 1))
