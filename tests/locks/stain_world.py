"""What the tests of stains share: small stained networks, made once."""

from __future__ import annotations

import functools
from typing import Any
from unittest import mock

import torch
from torch import nn

import networks
from keylatch.locks import Stained, stain
from keylatch.locks._capture import capture
from keylatch.locks._detector import _draw
from keylatch.locks._detector._features import FeatureReader
from keylatch.locks._detector._sites import find_detector_sites

SEED = bytes(range(32))
RATE = 1e-2  # small networks have narrow layers and short ascents; their bounds are checked all the same


class WideTokens(networks.Tokens):
    """A transformer wide enough for a detector in its MLP."""

    def __init__(self) -> None:
        super().__init__(width=160)


class Activated(nn.Sequential):
    """One wide convolution, with or without batch normalization, in front of a classifier."""

    def __init__(self, activation: nn.Module, *, norm: bool = False, bias: bool = True) -> None:
        super().__init__(
            nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 48, 3, 2, 1, bias=bias),
            *([nn.BatchNorm2d(48)] if norm else []), activation,
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10),
        )  # fmt: skip


def images(count: int = 48) -> torch.Tensor:
    """Calibration images, float (count, 3, 32, 32)."""
    return networks.pixels(count).float() / 255


def held_out(count: int = 200) -> torch.Tensor:
    """Other images, of another kind: noise of several grains."""
    generator = torch.Generator().manual_seed(5)
    sizes = (4, 8, 16, 32)
    parts = [
        torch.nn.functional.interpolate(torch.rand(count // 4, 3, size, size, generator=generator), networks.SIZE)
        for size in sizes
    ]
    return torch.cat(parts)


def make(network: nn.Module, **options: Any) -> Stained:
    """Stain with a fixed seed and calibration images, and short ascents."""
    climb = _draw.find_triggers
    with mock.patch.object(_draw, "find_triggers", lambda *given, **named: climb(*given, **{**named, "steps": 120})):
        return stain(network, networks.SPEC, **{"calibration": images(), "rate": RATE, "seed": SEED, **options})


@functools.cache
def stained_convs() -> tuple[nn.Module, Stained]:
    """PaddedConvs with two stains and six decoys, in a layer with batch normalization; do not change it."""
    network = networks.settle(networks.PaddedConvs)
    return network, make(network, count=2, decoys=6, layers=["6"])


@functools.cache
def stained_tokens() -> tuple[nn.Module, Stained]:
    """A transformer with a stain in its MLP; do not change it."""
    network = networks.settle(WideTokens)
    return network, make(network)


def reader_of(network: nn.Module, layer: str) -> FeatureReader:
    """Reads what enters a layer."""
    graph, _ = capture(network, networks.SPEC)
    site = next(site for site in find_detector_sites(graph) if site.name == layer)
    return FeatureReader(graph.requires_grad_(False), site)


def site_names(network: nn.Module) -> list[str]:
    """Layers that can hold a detector."""
    graph, _ = capture(network, networks.SPEC)
    return [site.name for site in find_detector_sites(graph)]


def answers_of(network: nn.Module, stained: Stained, layer: int, shown: torch.Tensor) -> torch.Tensor:
    """What the stained units answer before their activation, largest over positions: (N, stains).

    Read from the module itself, by running a part of a Sequential: nothing of the library is used.
    """
    assert isinstance(network, nn.Sequential)
    with torch.no_grad():
        answers = part_of(network, 0, layer + 1)(shown)
    return answers[:, [mark.unit for mark in stained.secret.stains]].amax((2, 3))


def part_of(network: nn.Module, start: int, stop: int) -> nn.Sequential:
    """Some layers of a Sequential."""
    assert isinstance(network, nn.Sequential)
    return nn.Sequential(*list(network)[start:stop])
