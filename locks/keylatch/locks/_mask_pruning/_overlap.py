"""How alike two domains are to a network: whether a linear classifier can tell them apart.

Masks can only take apart what the network tells apart. The measure is the "proxy A-distance" of Ben-David et al. (NIPS
2006, section 5): fit a linear classifier of domains to the features on one half of the images, and look at its errors
on the other half.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from keylatch.locks._input_spec import InputSpec
from keylatch.locks._key_training_data import ImageSet, generator_for, normalized
from keylatch.locks._mask_pruning._features import penultimate

OVERLAPPING = 0.5  # a classifier that is right in no more than three of four cases
_MOST_IMAGES = 500  # of each domain
_BATCH = 128
_RIDGE = 0.1  # of the features' number


class DomainWarning(UserWarning):
    """Something about domains that will make masks worse, though they can be learned."""


@dataclass(frozen=True, slots=True)
class DomainOverlap:
    """How alike two domains are to a network.

    Attributes:
        first: A domain.
        second: Another.
        accuracy: Of a linear classifier that tells them apart by the network's features, on held-out images, in
            percent; 50 is guessing.
        similarity: 2 (1 - accuracy), from 0, apart, to 1, the same.
        shared_images: Images that are in both, bit by bit.
    """

    first: str
    second: str
    accuracy: float
    similarity: float
    shared_images: int

    @property
    def overlapping(self) -> bool:
        """Whether masks that serve the one and not the other are not to be expected."""
        return self.similarity > OVERLAPPING or self.shared_images > 0

    def to_json(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


def overlap_of(
    network: nn.Module,
    spec: InputSpec,
    first: tuple[str, ImageSet],
    second: tuple[str, ImageSet],
    *,
    device: torch.device,
    seed: int,
) -> DomainOverlap:
    """Measure how alike two domains, each with its name, are to a network in evaluation mode."""
    count = min(len(first[1]), len(second[1]), _MOST_IMAGES)
    generator = generator_for(seed, "overlap")
    chosen = [data.images[torch.randperm(len(data), generator=generator)[:count]] for _, data in (first, second)]
    apart = _held_out_accuracy(*(_features(network, spec, images, device) for images in chosen))
    shared = len(_bytes_of(first[1].images) & _bytes_of(second[1].images))
    return DomainOverlap(first[0], second[0], 100 * apart, min(1.0, max(0.0, 2 * (1 - apart))), shared)


@torch.no_grad()
def _features(network: nn.Module, spec: InputSpec, images: torch.Tensor, device: torch.device) -> torch.Tensor:
    parts = [penultimate(network, normalized(part.to(device), spec))[0] for part in torch.split(images, _BATCH)]
    return torch.cat(parts).double().cpu()


def _bytes_of(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def _held_out_accuracy(first: torch.Tensor, second: torch.Tensor) -> float:
    """Share of held-out features that ridge regression puts into their domain; both have as many rows."""
    half = max(1, len(first) // 2)
    fit = torch.cat([first[:half], second[:half]])
    mean, scale = fit.mean(0), fit.std(0, correction=0) + 1e-6
    fit = (fit - mean) / scale
    sides = torch.cat([torch.ones(half), -torch.ones(half)]).double()
    # The dual form: as many unknowns as images, however many features there are.
    ridge = _RIDGE * fit.shape[1] * torch.eye(len(fit), dtype=torch.float64)
    direction = fit.T @ torch.linalg.solve(fit @ fit.T + ridge, sides)
    held_first, held_second = (((held[half:] - mean) / scale) @ direction for held in (first, second))
    if not len(held_first):
        return 0.5
    return float(((held_first > 0).double().mean() + (held_second <= 0).double().mean()) / 2)
