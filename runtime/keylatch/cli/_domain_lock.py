"""Masks for `keylatch lock`: learn from folders of pictures which weights each domain's license is to bring."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from keylatch.cli._image_folder import class_names, read_image_folder, read_pictures
from keylatch.cli._output import print_warning
from keylatch.cli._source import trainable

_HELD_OUT_EVERY = 5  # pictures of the source and of each target are held out to measure on
_SOURCE = "source"


@dataclass(frozen=True, slots=True)
class DomainOptions:
    """What the options of domain masks ask for.

    Attributes:
        setting: ``SA``, ``SF`` or ``DF``.
        source: Folder of the source's pictures, one subfolder a class.
        targets: Folders of the domains that licenses are to bring, by name; the same subfolders, for SF any or none.
        epochs: Passes over the pictures.
        checkpoint: File to resume from.
    """

    setting: str
    source: Path | None
    targets: Mapping[str, Path]
    epochs: int
    checkpoint: Path | None


@dataclass(frozen=True, slots=True)
class DomainLocked:
    """What came of it.

    Attributes:
        locked: As `domain_lock` gives it.
        masks: How the masks were learned.
        drops: Accuracies on pictures that were held out; None without labels.
    """

    locked: Any
    masks: Any
    drops: Any


def domain_options_from(
    wanted: bool, setting: str, source: Path | None, targets: Sequence[str], epochs: int, checkpoint: Path | None
) -> DomainOptions | None:
    """Make sense of the options; None for another method."""
    if not wanted:
        if source or targets or setting != "SA":
            raise typer.BadParameter("--source, --target and --setting go with --method map")
        return None
    named: dict[str, Path] = {}
    for text in targets:
        name, separator, folder = text.partition("=")
        if not separator or not name or not folder or name in named or name == _SOURCE:
            raise typer.BadParameter("give --target as name=folder, each name once, e.g. --target usps=pictures/usps")
        named[name] = Path(folder)
    return DomainOptions(setting, source, named, epochs, checkpoint)


def lock_domains(network: Any, spec: Any, wanted: DomainOptions, behind: Any = None) -> DomainLocked:
    """Learn a mask for each target, measure what it leaves, and withhold it.

    Args:
        network: The network.
        spec: Its images.
        wanted: The options.
        behind: What a code lock made of the network; None for none. Layers that it gates are not masked.

    Raises:
        InputError: If pictures cannot be read, or class folders differ.
        LockError: If they, the network and the setting do not fit together.
    """
    from keylatch.locks import DomainWarning, check_domain_names, domain_lock, learn_domain_masks

    network = trainable(network)
    if wanted.targets:
        check_domain_names(wanted.targets)
    domains = _read(wanted, spec)
    labeled = wanted.setting == "SA" and wanted.source is not None
    given = {name: _split(images, held_out=False) if labeled else images for name, images in domains.items()}
    source = given.pop(_SOURCE, None)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", DomainWarning)
        learned = learn_domain_masks(
            network, spec, setting=wanted.setting,  # type: ignore[arg-type]  # it refuses others
            source=None if source is None else [source], targets={name: [images] for name, images in given.items()},
            layers=None if behind is None else _not_gated(network, behind),
            epochs=wanted.epochs, checkpoint=wanted.checkpoint,
        )  # fmt: skip
    for warning in heard:
        print_warning(str(warning.message))
    drops = _drops(network, spec, learned.masks, domains) if labeled else None
    locked = domain_lock(network if behind is None else behind, spec, learned.masks)
    return DomainLocked(locked, learned.report, drops)


def _not_gated(network: Any, behind: Any) -> list[str]:
    from torch import nn

    gated = {layer.name for layer in behind.report.layers}
    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    names = [f"{path}.weight" for path, layer in network.named_modules() if isinstance(layer, kinds)]
    return [name for name in names if name not in gated]


def _read(wanted: DomainOptions, spec: Any) -> dict[str, Any]:
    """By name pixels and labels, the source's first; for SF pixels alone."""
    folders = {_SOURCE: wanted.source} if wanted.source is not None else {}
    folders |= wanted.targets
    if wanted.setting == "SF":
        return {name: read_pictures(folder, spec) for name, folder in folders.items()}
    if not folders:
        return {}
    names = class_names(next(iter(folders.values())))
    return {name: read_image_folder(folder, names, spec) for name, folder in folders.items()}


def _split(images: tuple[Any, Any], *, held_out: bool) -> tuple[Any, Any]:
    """Every fifth picture, or the others: the order of the files is that of their names, class by class."""
    import torch

    chosen = (torch.arange(len(images[1])) % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1) == held_out
    return images[0][chosen], images[1][chosen]


def _drops(network: Any, spec: Any, masks: Any, domains: Mapping[str, Any]) -> Any:
    from keylatch.locks import masked_model, measure_domains

    held_out = {name: [_split(images, held_out=True)] for name, images in domains.items()}
    targets = [name for name in domains if name != _SOURCE]
    return measure_domains(network, masked_model(network, masks), spec, held_out, source=_SOURCE, targets=targets)


def domain_lines(made: DomainLocked) -> list[tuple[str, object]]:
    """What came of it, for the terminal."""
    withheld = "\n".join(f"{domain.name}: {100 * domain.share:.2f} % of the weights" for domain in made.masks.domains)
    if made.drops is None:
        found = "not measured, for want of labels; try it before you ship it"
    else:
        found = "\n".join(
            f"{domain.name}: {domain.original:.1f} %, without a license {domain.masked:.1f} %"
            for domain in made.drops.domains
        )
    return [
        ("masks", f"{made.masks.setting}-MAP, {made.masks.epochs} epochs, {made.masks.seconds:.0f} s"),
        ("withheld for", withheld),
        ("accuracy", found),
    ]
