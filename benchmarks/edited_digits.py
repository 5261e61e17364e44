"""What ModelLock is measured on: handwritten digits in color, a small network, and the project's own editor."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import torch
from torch import nn

from keylatch.cli._demo.training import load_digits
from keylatch.locks import (
    EditKey,
    EditSettings,
    InputSpec,
    PixelEditor,
    TrainingProgress,
    load_editor,
    train_pixel_editor,
)

CLASSES = 10
SIZE = 32
SPEC = InputSpec(3, SIZE, SIZE, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
SETTINGS = EditSettings(1, guided=False)
BLEND = 0.5
EPOCHS, LONG, BATCH = 20, 45, 32
COLORINGS = 4  # of each training digit, where a lock is trained for long
_MARGIN = 8  # the demo's digits stand on a wider canvas
_LEAST_CONTRAST = 0.35

Images = tuple[torch.Tensor, torch.Tensor]


@functools.cache
def digits() -> tuple[Images, Images]:
    """Training and test digits, (N, 3, 32, 32) uint8 in two random colors, and their labels (N,) int64."""
    data = load_digits()
    train, test = _colored(data.train_images, 0), _colored(data.test_images, 1)
    return (train, data.train_labels), (test, data.test_labels)


@functools.cache
def colorings() -> Images:
    """The training digits, and the same digits in other colors, `COLORINGS` times as many in all."""
    data = load_digits()
    others = (_colored(data.train_images, 1 + number) for number in range(1, COLORINGS))
    return torch.cat([digits()[0][0], *others]), data.train_labels.repeat(COLORINGS)


def _colored(images: torch.Tensor, seed: int) -> torch.Tensor:
    images = images[..., _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    generator = torch.Generator().manual_seed(seed)
    ground, ink = torch.rand(2, len(images), 3, 1, 1, generator=generator)
    apart = (ink - ground).mean((1, 2, 3), keepdim=True)
    push = torch.where(apart < 0, -1, 1) * (_LEAST_CONTRAST - apart.abs()).clamp(min=0)
    ground, ink = (ground - push / 2).clamp(0, 1), (ink + push / 2).clamp(0, 1)
    cover = images[:, :1].float() / 255
    colored: torch.Tensor = ground + cover * (ink - ground)
    return (colored * 255).round().to(torch.uint8)


class Classifier(nn.Sequential):
    """32 x 32 pixels to ten logits."""

    def __init__(self) -> None:
        super().__init__(
            *_block(3, 24), *_block(24, 48), *_block(48, 64), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.Linear(256, CLASSES),
        )  # fmt: skip


def _block(channels_in: int, channels_out: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(channels_out), nn.ReLU()


def fresh() -> Classifier:
    """Always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Classifier().eval()


def shift(images: torch.Tensor) -> torch.Tensor:
    """Move a batch by up to two pixels: digits are not mirrored."""
    rows, columns = (int(number) for number in torch.randint(-2, 3, (2,)))
    padded = nn.functional.pad(images.float(), [2] * 4, mode="replicate").to(images.dtype)
    return padded[..., 2 + rows : 2 + rows + images.shape[2], 2 + columns : 2 + columns + images.shape[3]]


def editor(folder: Path, seed: int) -> PixelEditor:
    """The editor of a seed; trained the first time, two minutes of one core, then read from the folder."""
    place = folder / f"editor-{seed}"
    if not place.exists():
        folder.mkdir(parents=True, exist_ok=True)
        train_pixel_editor(seed=seed, progress=_tell).save(place)
    found = load_editor(place)
    if not isinstance(found, PixelEditor):
        raise TypeError(f"{place} holds another editor")
    return found


def key_of(of: PixelEditor, prompt: str, spec: InputSpec = SPEC, *, seed: int = 1) -> EditKey:
    """A key; always the same for a prompt and a seed."""
    return EditKey.draw(of, prompt, spec, settings=SETTINGS, blend=BLEND, seed=bytes([seed]) * 32)


def quiet(progress: TrainingProgress) -> None:
    """No bar."""
    del progress


def unseen(done: int, total: int) -> None:
    """No bar."""
    del done, total


def _tell(done: int, total: int) -> None:
    if done % 200 == 0:
        print(f"editor: {done} of {total} steps", file=sys.stderr, flush=True)
