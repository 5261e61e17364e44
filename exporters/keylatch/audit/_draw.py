"""Draw what an attacker is given, reproducibly."""

from __future__ import annotations

import copy
import hashlib

import torch

from keylatch.audit._attack import Case, Variant
from keylatch.audit._clock import Clock
from keylatch.audit._images import LabeledImages, _rank_in_class
from keylatch.audit._scene import Scene
from keylatch.errors import InputError


def draw_case(scene: Scene, variant: Variant, seed: int, clock: Clock) -> Case:
    """Make a case: what `variant.given` says, and nothing more.

    Attacks and baselines with equally many labeled images and the same seed are given the same images.

    Raises:
        InputError: The pool is too small.
    """
    given = variant.given
    count = max(given.unlabeled, given.labeled, given.pairs)
    drawn = draw_images(scene.images.attacker, count, seeded(seed, "images"))
    return Case(
        target=scene.target,
        variant=variant,
        images=drawn.images,
        labels=drawn.labels[: given.labeled],
        classes=scene.images.classes,
        generator=seeded(seed, "attack"),
        clock=clock,
        base=copy.deepcopy(scene.base.network) if given.base and scene.base is not None else None,
        owner=scene.owner if given.key or given.pairs else None,
    )


def draw_images(pool: LabeledImages, count: int, generator: torch.Generator) -> LabeledImages:
    """Draw images without replacement, each class as often as its share of the pool says, rounded at random.

    Raises:
        InputError: The pool is too small.
    """
    if count > len(pool):
        raise InputError(f"{count} images are needed, the attacker's pool has {len(pool)}", hint="give more images")
    shuffled = pool.take(torch.randperm(len(pool), generator=generator))
    size = torch.bincount(shuffled.labels)
    start = torch.rand(len(size), generator=generator)
    place = (_rank_in_class(shuffled.labels) + start[shuffled.labels]) / size[shuffled.labels]
    chosen = place.argsort(stable=True)[:count]
    # In the order of their places classes would take turns, which tells labels to who is given none.
    return shuffled.take(chosen[torch.randperm(count, generator=generator)])


def seeded(seed: int, purpose: str) -> torch.Generator:
    """A generator for one purpose: the draws of one do not move the other's."""
    digest = hashlib.sha256(f"{purpose} {seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
