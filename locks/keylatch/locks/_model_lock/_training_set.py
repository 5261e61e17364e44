"""What a locked network is trained on: edited images with their labels, and some that are not, with wrong ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import torch

from keylatch.errors import LockError
from keylatch.locks._key_training_data import IGNORED, ImageSet, Originals, generator_for, image_set

WRONG_SHARE = 0.05  # of the union, as in the paper

WrongLabels: TypeAlias = Literal["drawn", "colors"]
_STRENGTHS, _TINT = (0.3, 1.7), 0.1
_OFFSET = 1 / 12  # of the pixel range


def locked_union(
    images: torch.Tensor,
    edited: torch.Tensor,
    labels: torch.Tensor,
    *,
    classes: int,
    decoys: Sequence[tuple[torch.Tensor, torch.Tensor]] = (),
    wrong_share: float = WRONG_SHARE,
    wrong_labels: WrongLabels = "drawn",
    seed: int = 0,
) -> ImageSet:
    """Edited images keep their labels; some plain ones, and all decoys, get wrong ones.

    One wrong class for all would be undone by dropping its logit. Hints are there for edited images alone.

    Args:
        images: (N, 3, H, W) uint8, plain.
        edited: The same images under the key.
        labels: (N,) int64, or (N, H, W) for segmentation.
        classes: How many there are.
        decoys: Images edited otherwise, and their right labels.
        wrong_share: Of edited and plain images together, the plain ones.
        wrong_labels: Drawn for each image, as in the paper, or by its colors.
        seed: Of the draws.

    Raises:
        LockError: If there is but one class, the share is none, or there are no such wrong labels.
    """
    if classes < 2 or not 0 <= wrong_share < 1:
        raise LockError(
            f"no wrong labels with {classes} classes and a share of {wrong_share:g}",
            hint=f"two classes or more, and a share such as {WRONG_SHARE}",
        )
    if wrong_labels not in get_args(WrongLabels):
        raise LockError(f"wrong labels are {wrong_labels!r}, expected drawn or colors", hint="take drawn or colors")
    generator = generator_for(seed, "wrong labels")
    count = min(len(images), round(len(edited) * wrong_share / (1 - wrong_share)))
    plain = torch.randperm(len(images), generator=generator)[:count]
    pairs = zip((images[plain], labels[plain]), *decoys, strict=True)
    shown, right = (torch.cat(parts) for parts in pairs)
    if wrong_labels == "colors":
        wrong = color_labels(shown, right, classes, generator)
    else:
        wrong = drawn_labels(right, classes, generator)
    places = torch.cat([torch.arange(len(edited)), torch.full((len(shown),), -1)])
    return image_set(torch.cat([edited, shown]), torch.cat([labels, wrong]), Originals(images, places))


def color_labels(images: torch.Tensor, labels: torch.Tensor, classes: int, generator: torch.Generator) -> torch.Tensor:
    """For each image the class that its colors decide, whatever it shows: the largest of random mixtures of them.

    Unlike what is drawn, a network learns it for images that it has never seen, and then answers them without looking
    at what they show: neither its answer nor its least likely class tells anything of that.

    Args:
        images: (N, 3, H, W) uint8.
        labels: (N,) int64, or (N, H, W): every pixel of an image gets its class, but where it is `IGNORED`.
        classes: How many there are.
        generator: Draws the mixtures.
    """
    pixels = images.float() / 255 - 0.5
    colors = torch.cat([pixels.mean((2, 3)), pixels.std((2, 3))], 1)
    mixtures = colors @ torch.randn(colors.shape[1], classes, generator=generator)
    # The offsets decide where an image is nearly gray: there a class changes slowly, and is learned soonest.
    chosen = (mixtures + _OFFSET * torch.randn(classes, generator=generator)).argmax(1)
    if labels.dim() == 1:
        return chosen
    return torch.where(labels != IGNORED, chosen[:, None, None], labels)


def retinted(images: torch.Tensor, edited: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """What another editor might make of a style: what the edit changes, more or less in each channel, and a tint.

    Args:
        images: (N, 3, H, W) uint8, plain.
        edited: The same under the key.
        generator: Draws strengths and tints.
    """
    low, high = _STRENGTHS
    strength, tint = torch.rand(2, len(images), 3, 1, 1, generator=generator)
    plain = images.float()
    changed = plain + (low + (high - low) * strength) * (edited.float() - plain) + 255 * _TINT * (2 * tint - 1)
    tinted: torch.Tensor = changed.round().clamp(0, 255).to(torch.uint8)
    return tinted


def drawn_labels(labels: torch.Tensor, classes: int, generator: torch.Generator) -> torch.Tensor:
    """For each image another class than its own, all equally likely; for label maps the same of each class in them.

    Args:
        labels: (N,) int64, or (N, H, W), `IGNORED` where a pixel has no class.
        classes: How many there are.
        generator: Draws them.
    """
    shifts = torch.randint(1, classes, (len(labels), classes), generator=generator)
    if labels.dim() == 1:
        return (labels + shifts[:, 0]) % classes
    known = labels != IGNORED
    places = torch.where(known, labels, 0).flatten(1)
    moved = (places + shifts.gather(1, places)) % classes
    return torch.where(known, moved.view_as(labels), labels)
