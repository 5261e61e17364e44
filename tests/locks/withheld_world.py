"""What the tests of withheld weights share: networks, masks, and the network that is left of a choice of domains."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping

import torch
from torch import nn

from networks import PaddedConvs, settle

DOMAINS = ("mnist_m", "usps")
CHOICES = [(), ("usps",), ("mnist_m",), DOMAINS]


class Tokens(nn.Module):
    """A patchify stem, linear layers on tokens, and a head: exporters transpose their weights."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(3, 64, 8, 8), nn.Linear(64, 96)
        self.norm, self.square, self.head = nn.LayerNorm(96), nn.Linear(96, 96), nn.Linear(96, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        tokens = self.stem(image).flatten(2).transpose(1, 2)
        return self.head(torch.relu(self.square(self.norm(self.first(tokens)))).mean(1))


def convolutional() -> nn.Module:
    return settle(lambda: PaddedConvs(width=16))


def masks_for(
    network: nn.Module, share: float = 0.1, without: Collection[str] = ()
) -> dict[str, dict[str, torch.Tensor]]:
    """Random masks of all weights of two or more axes."""
    generator = torch.Generator().manual_seed(0)
    weights = {n: p for n, p in network.named_parameters() if p.dim() > 1 and n not in without}
    return {
        domain: {name: torch.rand(value.shape, generator=generator) < share for name, value in weights.items()}
        for domain in DOMAINS
    }


def left_of(network: nn.Module, masks: Mapping[str, Mapping[str, torch.Tensor]], paid: Collection[str]) -> nn.Module:
    """The network with zeros wherever the mask of a domain that is not paid for covers a weight."""
    left = copy.deepcopy(network)
    for domain in set(masks) - set(paid):
        for name, value in left.named_parameters():
            if name in masks[domain]:
                value.data[masks[domain][name]] = 0
    return left
