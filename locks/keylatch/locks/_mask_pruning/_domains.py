"""The images that masks are learned from, read and checked."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from keylatch.errors import LockError
from keylatch.locks._input_spec import InputSpec
from keylatch.locks._key_training_data import ImageSet, normalized, read_images
from keylatch.locks._mask_pruning._overlap import DomainOverlap, DomainWarning, overlap_of

Setting = Literal["SA", "SF", "DF"]
Loader = Iterable[Any]

_BATCH = 256
_WHAT = {
    "SA": ("source and targets, both labeled", True, True),
    "SF": ("targets, and no source", False, True),
    "DF": ("neither source nor targets", False, False),
}


@dataclass(frozen=True, slots=True, eq=False)
class Domains:
    """What is given.

    Attributes:
        source: What the network is to serve; None if it is to be made.
        targets: Domains that a license brings, by name; none if they are to be made.
        classes: Of the network.
    """

    source: ImageSet | None
    targets: Mapping[str, ImageSet]
    classes: int


def read_domains(
    network: nn.Module,
    spec: InputSpec,
    setting: Setting,
    source: Loader | None,
    targets: Mapping[str, Loader] | None,
    device: torch.device,
) -> Domains:
    """Read loaders to their ends, and label what the setting leaves without labels by the network itself.

    Raises:
        LockError: Something is missing or too much for the setting, a domain is empty, images or classes do not fit.
    """
    _require_given(setting, source, targets)
    classes = _count_classes(network, spec, device)
    named = dict(targets or {})
    if setting == "SF":
        named = {name: _without_labels(loader) for name, loader in named.items()}
    read = {name: read_images(loader, spec, name=f"{name} domain's") for name, loader in named.items()}
    if setting == "SF":
        read = {name: _with_own_labels(network, spec, data, device) for name, data in read.items()}
    given = None if source is None else read_images(source, spec, name="source domain's")
    for name, data in (read if given is None else {"source": given, **read}).items():
        _require_classes(name, data, classes)
        if given is not None:
            _require_same_classes(name, data, given)
    return Domains(given, read, classes)


def _require_given(setting: Setting, source: Loader | None, targets: Mapping[str, Loader] | None) -> None:
    if setting not in _WHAT:
        raise LockError(f"setting is {setting!r}, expected 'SA', 'SF' or 'DF'", hint="take 'SA' if there are images")
    what, needs_source, needs_targets = _WHAT[setting]
    if (source is not None, bool(targets)) != (needs_source, needs_targets):
        got = [*(["a source"] if source is not None else []), *(["targets"] if targets else [])]
        raise LockError(
            f"setting {setting} takes {what}; got {' and '.join(got) or 'nothing'}",
            hint="SA has labeled source and targets, SF unlabeled targets alone, DF the model alone",
        )


def _count_classes(network: nn.Module, spec: InputSpec, device: torch.device) -> int:
    probe = torch.zeros(2, spec.channels, spec.height, spec.width, device=device)
    try:
        with torch.no_grad():
            scores = network(normalized(probe, spec))
    except RuntimeError:  # PyTorch's word for shapes that do not fit
        raise LockError(
            f"the model does not take images of shape {spec.shape}", hint="give the spec of its own images"
        ) from None
    shape = tuple(scores.shape) if isinstance(scores, torch.Tensor) else ()
    if len(shape) != 2 or shape[0] != 2 or shape[1] < 2:
        raise LockError(
            f"the model returns shape {shape} for 2 images, expected logits (2, classes)"
            if shape
            else f"the model returns a {type(scores).__name__} for 2 images, expected logits (2, classes)",
            hint="masks are learned for classifiers: wrap it in a module whose forward returns the logits alone",
        )
    return shape[1]


def _without_labels(batches: Loader) -> Iterator[tuple[Any, torch.Tensor]]:
    for batch in batches:
        images = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
        if not isinstance(images, torch.Tensor):
            raise LockError(
                f"a batch is a {type(images).__name__}, expected a tensor of images",
                hint="let the loader give images, or pairs of which the first are images",
            )
        yield images, torch.zeros(len(images), dtype=torch.int64)


def _with_own_labels(network: nn.Module, spec: InputSpec, data: ImageSet, device: torch.device) -> ImageSet:
    """Pseudo-labels (arXiv 2403.04149, section 3.3): what the frozen network sees."""
    with torch.no_grad():
        parts = [
            network(normalized(part.to(device), spec)).argmax(1).cpu() for part in torch.split(data.images, _BATCH)
        ]
    return replace(data, labels=torch.cat(parts))


def _require_classes(name: str, data: ImageSet, classes: int) -> None:
    if data.is_dense:
        raise LockError(f"labels of domain {name} are for pixels, expected one an image", hint="give a classifier")
    low, high = int(data.labels.min()), int(data.labels.max())
    if low < 0 or high >= classes:
        raise LockError(
            f"classes of domain {name} reach from {low} to {high}, the model has {classes} outputs",
            hint="number the classes of all domains as the model's outputs are, from 0",
        )


def _require_same_classes(name: str, data: ImageSet, source: ImageSet) -> None:
    """Refuse classes that the source has not; warn of those that only the source has."""
    theirs, ours = set(data.labels.tolist()), set(source.labels.tolist())
    if theirs - ours:
        raise LockError(
            f"domain {name} has classes {_few(theirs - ours)}, which the source has not",
            hint="give domains of the same classes, numbered in the same way",
        )
    if ours - theirs:
        warnings.warn(
            f"domain {name} has no image of classes {_few(ours - theirs)}, which the source has: what the network "
            "makes of them there is left to chance",
            DomainWarning,
            stacklevel=4,
        )


def _few(classes: set[int]) -> str:
    shown = sorted(classes)
    return ", ".join(map(str, shown[:8])) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "")


def overlaps(
    network: nn.Module, spec: InputSpec, domains: Domains, device: torch.device, seed: int
) -> tuple[DomainOverlap, ...]:
    """Measure each pair of the given domains, and warn of those that overlap."""
    sets = ({"source": domains.source} if domains.source is not None else {}) | dict(domains.targets)
    found = tuple(
        overlap_of(network, spec, first, second, device=device, seed=seed)
        for first, second in itertools.combinations(sets.items(), 2)
    )
    for overlap in found:
        if overlap.overlapping:
            warnings.warn(
                f"domains {overlap.first} and {overlap.second} overlap, similarity {overlap.similarity:.2f}: by the "
                f"network's features {overlap.accuracy:.0f} % of held-out images are told apart, 50 is guessing; "
                f"{overlap.shared_images} images are in both. What is withheld for one will miss in the other",
                DomainWarning,
                stacklevel=3,
            )
    return found
