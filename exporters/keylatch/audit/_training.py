"""The one training loop that attacks and baselines share, so that neither is given a better one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.nn import functional

from keylatch.audit._clock import Clock

BATCH = 32
LEARNING_RATE = 1e-3
FINE_TUNE_STEPS = 160  # of every attack that trains on labeled images, and of the baselines beside it
_EVALUATION_VALUES = 2**20  # of the images in a batch: activations of more no longer fit into caches
_SHIFT_SHARE = 1 / 16  # of the image's side: the least augmentation that suits digits and photographs alike
_WARMUP_SHARE = 0.1
_MAX_GRADIENT_NORM = 5.0
_LEARNED = 1e-3  # cross-entropy, smoothed over about ten steps: there is nothing left to learn
_SMOOTHING = 0.9

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def fit(
    network: nn.Module,
    parameters: Iterable[nn.Parameter],
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    steps: int,
    clock: Clock,
    generator: torch.Generator,
    learning_rate: float = LEARNING_RATE,
    batch: int = BATCH,
    loss: Loss = functional.cross_entropy,
) -> int:
    """Train some parameters of a network: Adam, one warm-up and cosine cycle, small random shifts of the images.

    Args:
        network: From images to (n, classes) scores.
        parameters: What is trained; the others keep their values.
        images: (n, *shape) as the model takes them.
        labels: (n,) int64.
        steps: How many.
        clock: Training ends when it has expired.
        generator: Draws batches and shifts.
        learning_rate: The largest, after warm-up.
        batch: Images in a step.
        loss: Of scores and labels.

    Returns:
        The steps done; fewer than asked if the clock ended it. A set that is learned by heart counts as done.
    """
    trained = [parameter for parameter in parameters if parameter.is_floating_point()]
    optimizer = torch.optim.Adam(trained, lr=learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=learning_rate, total_steps=max(2, steps), pct_start=_WARMUP_SHARE, cycle_momentum=False
    )
    smoothed = math.inf
    for step in range(steps):
        if clock.expired:
            return step
        if loss is functional.cross_entropy and smoothed < _LEARNED:
            return steps
        chosen = torch.randint(len(images), (min(batch, len(images)),), generator=generator)
        value = loss(network(shifted(images[chosen], generator)), labels[chosen])
        if not torch.isfinite(value):
            return step
        current = float(value.detach())
        smoothed = current if math.isinf(smoothed) else _SMOOTHING * smoothed + (1 - _SMOOTHING) * current
        gradients = torch.autograd.grad(value, trained, allow_unused=True)
        for parameter, gradient in zip(trained, gradients, strict=True):
            parameter.grad = gradient
        torch.nn.utils.clip_grad_norm_([p for p in trained if p.grad is not None], _MAX_GRADIENT_NORM)
        optimizer.step()
        if step + 1 < steps:
            schedule.step()
    return steps


def shifted(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each image moved by a few pixels, the edge repeated; (n, C, H, W) or (n, H, W, C)."""
    rows, columns = (2, 3) if images.shape[1] <= 4 else (1, 2)
    return _shifted_along(_shifted_along(images, rows, generator), columns, generator)


def _shifted_along(images: torch.Tensor, axis: int, generator: torch.Generator) -> torch.Tensor:
    size = images.shape[axis]
    most = max(1, round(size * _SHIFT_SHARE))
    moves = torch.randint(-most, most + 1, (len(images), 1), generator=generator)
    index = (torch.arange(size) + moves).clamp(0, size - 1)
    view = [len(images), 1, 1, 1]
    view[axis] = size
    shape = list(images.shape)
    return images.gather(axis, index.view(view).expand(shape))


def scores(network: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """(n, classes) float32 scores of many images, in batches, without gradients."""
    batch = max(1, _EVALUATION_VALUES // max(1, images.shape[1:].numel()))
    with torch.no_grad():
        return torch.cat([network(part).float() for part in torch.split(images, batch)])


def accuracy(network: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, labels: torch.Tensor) -> float:
    """Top-1 accuracy in percent."""
    return float((scores(network, images).argmax(1) == labels).double().mean()) * 100
