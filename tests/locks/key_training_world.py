"""What the tests of training under a key share: textures that a tiny network tells apart in seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from keylatch.locks import InputSpec
from keylatch.locks._block_transform import BlockTransform
from keylatch.locks._key_training import FineTuned, TrainingProgress, fine_tune

SIDE = 16
SPEC = InputSpec(3, SIDE, SIDE, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
KEY = BlockTransform.draw(("shf", "np"), block_size=4, seed=bytes(range(32)))

Batches = list[tuple[torch.Tensor, torch.Tensor]]


def textures(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(count, 3, 16, 16) uint8 and (count,) int64: red rows, green columns, blue squares, with noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    phases = torch.randint(0, 4, (count, 1), generator=generator)
    waves = ((torch.arange(SIDE) + phases) % 4 < 2).float()
    rows = waves[:, :, None].expand(-1, -1, SIDE)
    patterns = torch.stack([rows, rows.transpose(1, 2), (rows + rows.transpose(1, 2)) % 2], 1)
    images = 60 + 50 * torch.rand(count, 3, SIDE, SIDE, generator=generator)
    images[torch.arange(count), labels] += 120 * patterns[torch.arange(count), labels]
    return images.to(torch.uint8), labels


def batches(images: torch.Tensor, labels: torch.Tensor, size: int = 32) -> Batches:
    return list(zip(torch.split(images, size), torch.split(labels, size), strict=True))


TRAIN, VALIDATION = batches(*textures(180, 1)), batches(*textures(90, 2))


class Net(nn.Sequential):
    """Everything that makes training depend on more than its weights: batch statistics and dropout."""

    def __init__(self, classes: int = 3, channels: int = 3) -> None:
        super().__init__(
            nn.Conv2d(channels, 24, 4, 4, bias=False), nn.BatchNorm2d(24), nn.ReLU(), nn.Dropout(0.1),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, classes),
        )  # fmt: skip


def network(build: Callable[[], nn.Module] = Net) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build()


def quiet(progress: TrainingProgress) -> None:
    """No bar in a test."""


def tune(model: nn.Module | None = None, **options: Any) -> FineTuned:
    arguments = {"spec": SPEC, "key": KEY, "train": TRAIN, "validation": VALIDATION, **options}
    given = [arguments.pop(name) for name in ("spec", "key", "train", "validation")]
    settings = {"epochs": 3, "batch": 32, "device": "cpu", "progress": quiet, **arguments}
    return fine_tune(model or network(), *given, **settings)


def accuracy(model: nn.Module, transform: BlockTransform) -> float:
    """Written out here, not taken from the library."""
    images, labels = textures(90, 2)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (SPEC.mean, SPEC.std))
    with torch.no_grad():
        found = model((transform.values(images) - mean) / std).argmax(1)
    return 100 * float((found == labels).double().mean())


def assert_same_weights(first: nn.Module, second: nn.Module) -> None:
    left, right = first.state_dict(), second.state_dict()
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value, right[name]), name


class Interrupted(Exception):
    """A power cut."""


def interrupt_after(epoch: int) -> Callable[[TrainingProgress], None]:
    def progress(state: TrainingProgress) -> None:
        if state.epoch == epoch:
            raise Interrupted

    return progress
