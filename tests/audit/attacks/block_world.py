"""Networks behind block transforms, small and really trained, as artifacts: what the tests of block attacks share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from attack_world import World
from torch import nn
from torch.nn import functional as F

import networks
from keylatch.audit import load_target
from keylatch.audit._owner import Owner
from keylatch.audit.onnx_network import load_onnx_network
from keylatch.exporters import export, export_plain
from keylatch.locks import BlockTransform, InputSpec, Locked, block_lock

SPEC = InputSpec(3, 32, 32, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
CLASSES = 10
Make = Callable[[str], World]
_COUNT = 1200
_SEEN = 600
_STEPS = 130


# The others have all they have, each at least once.
SLOW = {"absorbed, bytes", "trained, bytes", "ffx"}


def marked(names: Sequence[str]) -> list[Any]:
    """Names of locks, some of them only for `make test-all`."""
    return [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in names]


@functools.cache
def textures() -> tuple[torch.Tensor, torch.Tensor]:
    """(1200, 3, 32, 32) uint8 images of ten smooth colored textures, shifted, in noise; and their labels."""
    generator = torch.Generator().manual_seed(5)
    drawn = torch.rand(CLASSES, 3, 8, 8, generator=generator)
    smooth = F.interpolate(drawn, scale_factor=4.0, mode="bilinear", align_corners=False)
    labels = torch.arange(_COUNT) % CLASSES
    shifts = torch.randint(-3, 4, (_COUNT, 2), generator=generator).tolist()
    moved = torch.stack(
        [smooth[label].roll(shift, (1, 2)) for label, shift in zip(labels.tolist(), shifts, strict=True)]
    )
    noisy = moved + 0.1 * torch.randn(moved.shape, generator=generator)
    return (noisy.clamp(0, 1) * 255).round().to(torch.uint8), labels


class Patches(nn.Sequential):
    """A patchify stem, with a normalization behind it, and a head."""

    def __init__(self, size: int = 4) -> None:
        super().__init__(
            nn.Conv2d(3, 32, size, size, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1),
            nn.ReLU(), nn.Conv2d(64, 64, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES),
        )  # fmt: skip


class Overlapping(nn.Sequential):
    """A stem whose windows overlap."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 24, 4, 2, 1), nn.ReLU(), nn.Conv2d(24, 48, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
            nn.Flatten(), nn.Linear(192, CLASSES),
        )  # fmt: skip


@functools.cache
def key(steps: Sequence[Any], block_size: int) -> BlockTransform:
    """The same key on every run."""
    return BlockTransform.draw(steps, block_size=block_size, seed=networks.SEED)


def shown(pixels: torch.Tensor, transform: BlockTransform | None) -> torch.Tensor:
    """Normalized images, transformed before."""
    if transform is None:
        return networks.prepare(pixels, SPEC)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (SPEC.mean, SPEC.std))
    return (transform.values(pixels) - mean) / std


@functools.cache
def trained(kind: type[nn.Module], transform: BlockTransform | None = None) -> nn.Module:
    """Train a network on transformed images from scratch, in a second or two."""
    pixels, labels = textures()
    images, labels = shown(pixels[:_SEEN], transform), labels[:_SEEN]
    with torch.random.fork_rng(), networks.one_thread():
        torch.manual_seed(0 if transform is None else 1)
        network = kind()
        optimizer = torch.optim.Adam(network.parameters(), 3e-3)
        for _ in range(_STEPS):
            chosen = torch.randint(_SEEN, (48,))
            optimizer.zero_grad()
            F.cross_entropy(network(images[chosen]), labels[chosen]).backward()
            optimizer.step()
    return network.eval()


def shipped(locked: Locked, base: nn.Module, folder: Path, **options: Any) -> World:
    """Export a locked network beside its base; the images are those that neither has seen."""
    exported = export(locked.module, locked.secret, folder / "locked.latch", report=locked.report, **options)
    target = load_target(exported.path)
    owner = Owner({name: exported.secret_values[name] for name in target.gate_names}, locked.secret)
    pixels, labels = textures()
    images = networks.prepare(pixels[_SEEN:], target.spec)
    export_plain(base, SPEC, folder / "plain")
    return World(target, owner, images, labels[_SEEN:], load_onnx_network(folder / "plain" / "model.onnx"))


def absorbed(folder: Path, steps: Sequence[Any] = ("shf", "np"), size: int = 4, **options: Any) -> World:
    """A patchify stem that absorbed a key."""
    original = trained(Patches)
    return shipped(block_lock(original, SPEC, key(tuple(steps), size), absorb=True), original, folder, **options)


def keyed(folder: Path, steps: Sequence[Any], size: int, kind: type[nn.Module] = Overlapping, **options: Any) -> World:
    """A network that was trained with a key."""
    transform = key(tuple(steps), size)
    return shipped(block_lock(trained(kind, transform), SPEC, transform), trained(kind), folder, **options)


def coded(folder: Path, *, sealed_share: float) -> World:
    """A code lock, and a stem that absorbed a key; some of the weights, the stem's first, are withheld."""
    original = trained(Patches)
    locked = networks.lock(
        original, SPEC, gates=2, cost_share=1.0, sealed_share=sealed_share, blocks=key(("shf", "np"), 4), absorb=True
    )
    return shipped(locked, original, folder)


MAKERS: dict[str, Callable[[Path], World]] = {
    "absorbed": absorbed,
    "absorbed, bytes": lambda folder: absorbed(folder, uint8_input=True),
    "trained": lambda folder: keyed(folder, ("shf", "np"), 2),
    "trained, bytes": lambda folder: keyed(folder, ("shf", "np"), 4, uint8_input=True),
    "trained stem": lambda folder: keyed(folder, ("shf", "np"), 4, Patches),
    "ffx": lambda folder: keyed(folder, ("shf", "np", "ffx"), 2),
    "ffx, bytes": lambda folder: keyed(folder, ("ffx",), 2, uint8_input=True),
    "beside a code": lambda folder: coded(folder, sealed_share=0.0),
    "sealed": lambda folder: coded(folder, sealed_share=0.3),
}


def key_of(world: World) -> BlockTransform:
    """The owner's block key."""
    assert world.owner.secret is not None and world.owner.secret.blocks is not None
    return world.owner.secret.blocks


def same_keys(found: BlockTransform, right: BlockTransform) -> bool:
    """Whether two keys without ffx are the same."""
    return torch.equal(found.permutation, right.permutation) and torch.equal(found.negated, right.negated)
