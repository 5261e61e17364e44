"""Random changes of a batch of training pixels, before a key works on them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from keylatch.errors import LockError

_LARGEST_SHIFT = 1 / 8  # of the image's side; on CIFAR's 32 pixels the usual 4 (He et al. 2016, section 4.2)

Augment = Callable[[torch.Tensor], torch.Tensor]


def shift_and_flip(images: torch.Tensor) -> torch.Tensor:
    """Move each image by up to an eighth of its side, the edge repeated, and mirror every other one.

    The usual augmentation of small photographs. Not for images in which left and right differ, such as digits and
    text: take `no_augment` or your own there.

    Args:
        images: (N, C, H, W), any dtype.

    Returns:
        The same shape and dtype; drawn by torch's CPU generator, the same on every device.
    """
    count, channels, height, width = images.shape
    columns = _shifted_places(count, width)
    mirrored = torch.rand(count, 1) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns).to(images.device)
    rows = _shifted_places(count, height).to(images.device)
    image = torch.arange(count, device=images.device).view(-1, 1, 1, 1)
    channel = torch.arange(channels, device=images.device).view(1, -1, 1, 1)
    return images[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


def _shifted_places(count: int, side: int) -> torch.Tensor:
    most = round(side * _LARGEST_SHIFT)
    moves = torch.randint(-most, most + 1, (count, 1))
    return (torch.arange(side) + moves).clamp(0, side - 1)


def no_augment(images: torch.Tensor) -> torch.Tensor:
    """Leave the images as they are."""
    return images


def augmented(images: torch.Tensor, augment: Augment) -> torch.Tensor:
    """Augment a batch of pixels.

    Raises:
        LockError: If the augmentation changes the images' shape.
    """
    changed = augment(images)
    if changed.shape != images.shape:
        raise LockError(
            f"augment made shape {tuple(changed.shape)} of {tuple(images.shape)}, expected the same",
            hint="give an augmentation of a whole batch that keeps the size, such as shift_and_flip",
        )
    return changed
