"""Source images out of a trained network alone.

A fresh generator is trained until the frozen network gives its images the classes that they were asked for, and until
they have the statistics that the network's batch normalizations remember. A memory generator follows it slowly (a
moving average of its weights), so that what was once found is not forgotten when the fresh one moves on. Half of each
batch comes from either.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional

from keylatch.locks._input_spec import InputSpec
from keylatch.locks._key_training_data import normalized
from keylatch.locks._mask_pruning._generator import ImageGenerator
from keylatch.locks._mask_pruning._objective import Labeled
from keylatch.locks._mask_pruning._statistics import distances_to_statistics

_MEMORY = 0.99  # of the old weights in a step of the memory generator
_STATISTICS = 10.0  # weight of the statistics, as in DeepInversion (arXiv 1912.08795, section 4.1)
_SMOOTHNESS = 0.1  # weight of the total variation, the only prior of images that there is
_ALIKE = 0.1  # weight of the penalty on images that do not depend on their noise


class Synthesis(nn.Module):
    """The two generators.

    Args:
        spec: Size and normalization of the network's images.
        classes: Of the network.
    """

    def __init__(self, spec: InputSpec, classes: int) -> None:
        super().__init__()
        self._spec = spec
        self.fresh = ImageGenerator(spec, classes)
        self.memory = copy.deepcopy(self.fresh).requires_grad_(False)

    def loss(self, network: nn.Module, count: int, device: torch.device) -> torch.Tensor:
        """The fresh generator's loss on so many images, under a frozen network."""
        noise, labels = self.fresh.draw(count, device)
        pixels = self.fresh(noise, labels)
        with distances_to_statistics(network) as distances:
            scores = network(normalized(pixels, self._spec))
        loss = functional.cross_entropy(scores.float(), labels)
        if distances:
            loss = loss + _STATISTICS * torch.stack(distances).mean()
        return loss + _SMOOTHNESS * _variation(pixels) + _ALIKE * _alikeness(pixels, noise, labels)

    def remember(self) -> None:
        """Let the memory generator follow, after a step of the fresh one."""
        with torch.no_grad():
            for old, new in zip(self.memory.parameters(), self.fresh.parameters(), strict=True):
                old.lerp_(new, 1 - _MEMORY)

    @torch.no_grad()
    def draw(self, count: int, device: torch.device) -> Labeled:
        """Images of both generators, half each."""
        halves = [(self.fresh, count - count // 2), (self.memory, count // 2)]
        drawn = [(part, *part.draw(number, device)) for part, number in halves if number]
        pixels = torch.cat([part(noise, labels) for part, noise, labels in drawn])
        return pixels, torch.cat([labels for _, _, labels in drawn])


def _variation(pixels: torch.Tensor) -> torch.Tensor:
    """Mean difference of neighboring pixels."""
    rows = (pixels[..., 1:, :] - pixels[..., :-1, :]).abs().mean()
    return rows + (pixels[..., 1:] - pixels[..., :-1]).abs().mean()


def _alikeness(pixels: torch.Tensor, noise: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """High while images of one class look alike though their noise differs (arXiv 1903.05628), between 0 and 1."""
    pairs = (labels[:, None] == labels[None, :]).triu(1).nonzero()
    if not len(pairs):
        return pixels.new_zeros(())
    first, second = pairs[torch.randperm(len(pairs))[: len(pixels)].to(pairs.device)].T
    looks = (pixels[first] - pixels[second]).abs().flatten(1).mean(1)
    apart = (noise[first] - noise[second]).abs().mean(1)
    return 1 / (1 + 10 * (looks / apart).mean())
