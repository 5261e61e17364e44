"""Textures of a few domains, a small network that knows them all, and quick settings to learn masks with."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from keylatch.locks import DomainMasks, InputSpec, learn_domain_masks

SIDE, CLASSES = 8, 4
SPEC = InputSpec(3, SIDE, SIDE, (0.5,), (0.5,))
Pairs = list[tuple[torch.Tensor, torch.Tensor]]


def stripes(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Four classes: horizontal or vertical stripes, thin or wide, in the red channel on black, (count, 3, 8, 8)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    images = torch.zeros(count, 3, SIDE, SIDE)
    for image, label in zip(images, labels.tolist(), strict=True):
        width = 1 + label // 2
        lines = ((torch.arange(SIDE) + int(torch.randint(4, (1,), generator=generator))) // width % 2).float()
        image[0] = lines[:, None] if label % 2 else lines[None, :]
    noise = 0.15 * torch.randn(images.shape, generator=generator)
    return (images * 0.8 + noise).clamp(0, 1), labels


def domain(name: str, count: int, seed: int) -> Pairs:
    """The same stripes in red on black, in green on white, in blue on gray, in pink and noise."""
    images, labels = stripes(count, seed)
    if name == "green":
        images = 1 - images[:, [1, 0, 2]]
    if name == "blue":
        images = (0.5 + 0.5 * images[:, [1, 2, 0]]).clamp(0, 1)
    if name == "pink":
        noise = 0.35 * torch.rand(images.shape, generator=torch.Generator().manual_seed(seed))
        images = (images + noise + torch.tensor([0.0, 0.3, 0.3]).view(3, 1, 1) * images[:, :1]).clamp(0, 1)
    return [((images * 255).round().to(torch.uint8), labels)]


class Small(nn.Module):
    """Two convolutions and two linear layers; `norm` decides whether there are batch normalizations."""

    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 32, 3, 2, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) if norm else nn.Identity() for c in (16, 32))
        self.hidden, self.head = nn.Linear(32 * 16, 32), nn.Linear(32, CLASSES)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        values = torch.relu(self.norms[0](self.first(image)))
        values = torch.relu(self.norms[1](self.second(values)))
        return self.head(torch.relu(self.hidden(values.flatten(1))))


@functools.cache
def trained(norm: bool = True, names: tuple[str, ...] = ("red", "green", "blue")) -> nn.Module:
    """Knows these domains. Nobody changes it."""
    batches = [domain(name, 256, seed)[0] for seed, name in enumerate(names)]
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Small(norm)
        optimizer = torch.optim.Adam(network.parameters(), 3e-3)
        for _ in range(12):
            for chosen in torch.split(torch.randperm(len(labels)), 64):
                optimizer.zero_grad()
                functional.cross_entropy(network(SPEC.from_pixels(images[chosen])), labels[chosen]).backward()
                optimizer.step()
    return network.eval()


def learn(**options: Any) -> DomainMasks:
    """Masks on the trained network, without a word on stderr."""
    settings = {"epochs": 6, "batch": 32, "progress": lambda _: None, **options}
    return learn_domain_masks(settings.pop("model", None) or trained(), SPEC, **settings)


def red(count: int = 256) -> Pairs:
    """The source, to learn from."""
    return domain("red", count, 10)


def held_out() -> dict[str, Pairs]:
    """Images that nothing was learned from."""
    return {name: domain(name, 200, 20 + seed) for seed, name in enumerate(("red", "green", "blue"))}
