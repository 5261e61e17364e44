"""What a locked network is trained on: edited images with their labels, and some that are not, with wrong ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from keylatch.errors import LockError
from keylatch.locks._key_training_data import IGNORED, ImageSet, Originals, generator_for, image_set

WRONG_SHARE = 0.05  # of the union, as in the paper


def locked_union(
    images: torch.Tensor,
    edited: torch.Tensor,
    labels: torch.Tensor,
    *,
    classes: int,
    decoys: Sequence[tuple[torch.Tensor, torch.Tensor]] = (),
    wrong_share: float = WRONG_SHARE,
    seed: int = 0,
) -> ImageSet:
    """Edited images keep their labels; some plain ones, and all decoys, get wrong ones, drawn for each image.

    One wrong class for all would be undone by dropping its logit. Hints are there for edited images alone.

    Args:
        images: (N, 3, H, W) uint8, plain.
        edited: The same images under the key.
        labels: (N,) int64, or (N, H, W) for segmentation.
        classes: How many there are.
        decoys: Images edited otherwise, and their right labels.
        wrong_share: Of edited and plain images together, the plain ones.
        seed: Of the draws.

    Raises:
        LockError: If there is but one class, or the share is none.
    """
    if classes < 2 or not 0 <= wrong_share < 1:
        raise LockError(
            f"no wrong labels with {classes} classes and a share of {wrong_share:g}",
            hint=f"two classes or more, and a share such as {WRONG_SHARE}",
        )
    generator = generator_for(seed, "wrong labels")
    count = min(len(images), round(len(edited) * wrong_share / (1 - wrong_share)))
    plain = torch.randperm(len(images), generator=generator)[:count]
    wrong = [(images[plain], labels[plain]), *decoys]
    found = [edited, *(part for part, _ in wrong)]
    named = [labels, *(wrong_labels(right, classes, generator) for _, right in wrong)]
    places = torch.full((sum(map(len, found)),), -1)
    places[: len(edited)] = torch.arange(len(edited))
    return image_set(torch.cat(found), torch.cat(named), Originals(images, places))


def wrong_labels(labels: torch.Tensor, classes: int, generator: torch.Generator) -> torch.Tensor:
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
