"""Networks that one attack each must be able to repair."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
import weak_locks
from torch import nn
from torch.nn import functional as F
from weak_locks import WeakLock

import networks
from keylatch.audit._attack import Attack, Case, Given, Outcome, Resources, Variant
from keylatch.audit._clock import Clock
from keylatch.audit._training import accuracy

POOL = 300
RESOURCES = Resources(POOL, POOL, (30, 150), 10, base=False, owner=False)


def case_of(lock: WeakLock, digits: networks.Digits, variant: Variant, seconds: float = 120) -> Case:
    count = max(variant.given.unlabeled, variant.given.labeled)
    images, labels = digits.images[:count], digits.labels[: variant.given.labeled]
    return Case(lock.target, variant, images, labels, 10, torch.Generator().manual_seed(0), Clock(seconds))


def variant_of(lock: WeakLock, attack: Attack, given: Given | None = None, **settings: Any) -> Variant:
    """The first of an attack's own variants that has these givens and settings."""
    for variant in attack.variants(lock.target, RESOURCES):
        wanted = all(variant.settings.get(name) == value for name, value in settings.items())
        if wanted and given in (None, variant.given):
            return variant
    raise AssertionError(f"{attack.name} has no variant with {given} and {settings}")


def attacked(
    lock: WeakLock, digits: networks.Digits, attack: Attack, given: Given | None = None, **settings: Any
) -> Outcome:
    return attack.run(case_of(lock, digits, variant_of(lock, attack, given, **settings)))


def measured(predict: Any, digits: networks.Digits) -> float:
    """Percent, on images that no attacker saw."""
    return accuracy(predict, digits.images[POOL:], digits.labels[POOL:])


class WithheldStatistics(nn.Module):
    """A normalization of the image whose statistics are gate tensors, and the network on what it makes good."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.norm = network, nn.BatchNorm2d(3)
        generator = torch.Generator().manual_seed(3)
        nn.init.constant_(self.norm.weight, 0.3)
        nn.init.constant_(self.norm.bias, 0.3)
        self.norm.running_mean = torch.randn(3, generator=generator) * 5
        self.norm.running_var = torch.rand(3, generator=generator) * 9

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.network(self.norm(image))


def withheld_statistics(digits: networks.Digits, folder: Path) -> WeakLock:
    module = WithheldStatistics(digits.network)
    pixels = digits.images.transpose(0, 1).flatten(1)
    values = {"norm.running_mean": pixels.mean(1).numpy(), "norm.running_var": pixels.var(1).numpy()}
    return weak_locks.ship(module, "withheld-statistics", folder, values)


class Dimmed(nn.Module):
    """A network and a gate tensor that hardly matters: every artifact has one."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("brightness", torch.full((1, 3, 1, 1), 0.99))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.network(image * self.brightness)


class LoudChannels(nn.Module):
    """A few channels are far too loud; nothing reads a key."""

    def __init__(self, network: nn.Sequential) -> None:
        super().__init__()
        self.before, self.after = network[:6], network[6:]
        scales = torch.ones(1, 64, 1, 1)
        scales[0, 5], scales[0, 41] = 30.0, -30.0
        self.register_buffer("scales", scales)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.after(self.before(image) * self.scales)


def with_weights(network: nn.Module, change: Any, places: tuple[str, ...]) -> nn.Module:
    """A copy with the weights of some layers changed."""
    changed = copy.deepcopy(network)
    for place in places:
        layer = changed.get_submodule(place)
        layer.weight = nn.Parameter(change(layer.weight.detach()))
    return changed


class Skipping(nn.Module):
    """A residual network that does without its branch, but not with a wrong one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 4, 4), nn.ReLU(), nn.Conv2d(64, 64, 3, 2, 1), nn.ReLU())
        self.first, self.second = nn.Conv2d(64, 64, 3, 1, 1), nn.Conv2d(64, 64, 1)
        self.head = nn.Linear(64, 10)
        self.share = 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = F.relu(x + self.second(F.relu(self.first(x))) * self.share)
        return self.head(x.mean((2, 3)))


def trained_skipping(digits: networks.Digits) -> nn.Module:
    """Trained on the test's own images with the branch left out of two steps of three; its scores are not the point."""
    network = Skipping()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for parameter in network.parameters():
            if parameter.dim() > 1:
                nn.init.kaiming_normal_(parameter)
        with torch.no_grad():
            network.second.weight.mul_(2)
        optimizer = torch.optim.Adam(network.parameters(), 2e-3)
        for step in range(300):
            chosen = torch.randint(len(digits.images), (64,))
            network.share = float(step % 3 == 0)
            optimizer.zero_grad()
            F.cross_entropy(network(digits.images[chosen]), digits.labels[chosen]).backward()
            optimizer.step()
    network.share = 1.0
    return network.eval()
