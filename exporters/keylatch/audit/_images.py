"""Labeled images for an audit: a part to attack with, and a part that only the harness sees."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch

from keylatch.errors import InputError
from keylatch.locks import InputSpec

LEAST_EVALUATION = 50


@dataclass(frozen=True, eq=False)  # no slots: the digest is kept
class LabeledImages:
    """Images as the model takes them, with one class each.

    Attributes:
        images: (n, *spec.shape), the spec's dtype.
        labels: (n,) int64.
    """

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, order: torch.Tensor) -> Self:
        """Some of the images, in an order."""
        return type(self)(self.images[order], self.labels[order])

    @cached_property
    def sha256(self) -> str:
        """Digest of images and labels, hex; part of the cache's key. Computed once: it reads all images."""
        digest = hashlib.sha256(self.images.contiguous().numpy().data)
        digest.update(self.labels.contiguous().numpy().data)
        return digest.hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class AuditImages:
    """The images of an audit.

    Attributes:
        attacker: What attackers draw from; their order is random.
        evaluation: What accuracies are measured on; attackers never see them.
        classes: Number of classes.
    """

    attacker: LabeledImages
    evaluation: LabeledImages
    classes: int


def split_images(images: LabeledImages, classes: int, *, share: float = 0.5) -> AuditImages:
    """Split one set into two, `share` of each class for the attacker; always the same way.

    Raises:
        InputError: Too few images.
    """
    generator = torch.Generator().manual_seed(0)
    shuffled = images.take(torch.randperm(len(images), generator=generator))
    size = torch.bincount(shuffled.labels, minlength=classes)
    # A class of few images is rounded up for one side or the other at random.
    place = _rank_in_class(shuffled.labels) + torch.rand(len(size), generator=generator)[shuffled.labels]
    chosen = place / size[shuffled.labels] < share
    attacker, evaluation = shuffled.take(chosen.nonzero()[:, 0]), shuffled.take((~chosen).nonzero()[:, 0])
    if len(evaluation) < LEAST_EVALUATION:
        raise InputError(
            f"{len(images)} images leave {len(evaluation)} to measure on, expected at least {LEAST_EVALUATION}",
            hint="give more labeled images",
        )
    return AuditImages(attacker, evaluation, classes)


def check_images(images: LabeledImages, spec: InputSpec, classes: int) -> None:
    """Check shapes, dtype and labels.

    Raises:
        InputError: They do not fit the model, or each other.
    """
    if tuple(images.images.shape[1:]) != spec.shape or images.images.dtype != spec.torch_dtype:
        raise InputError(
            f"got {images.images.dtype} images of shape {tuple(images.images.shape[1:])}, "
            f"expected {spec.torch_dtype} {spec.shape}",
            hint="prepare them as the model takes them, or give bytes, NHWC",
        )
    if len(images.images) != len(images.labels):
        raise InputError(
            f"got {len(images.images)} images and {len(images.labels)} labels", hint="give one label for each image"
        )
    if len(images) and not (int(images.labels.min()) >= 0 and int(images.labels.max()) < classes):
        raise InputError(
            f"labels go from {int(images.labels.min())} to {int(images.labels.max())}, the model has {classes} classes",
            hint=f"number the classes from 0 to {classes - 1}, as the model's outputs are",
        )


def _rank_in_class(labels: torch.Tensor) -> torch.Tensor:
    """How many earlier images have the same label."""
    ranks = torch.zeros_like(labels)
    for label in torch.unique(labels):
        places = (labels == label).nonzero()[:, 0]
        ranks[places] = torch.arange(len(places))
    return ranks
