"""Learn which weights to withhold so that a network serves its source, and other domains only with a license.

    learned = learn_domain_masks(network, spec, source=mnist, targets={"usps": usps, "mnist-m": mnist_m})
    locked = domain_lock(network, spec, learned.masks)

With several targets each gets a mask of its own, and a license for some of them withholds the union of the others'. So
that such unions do what they should, all masks are learned together: each step draws which targets are unpaid, applies
the union of their masks, and counts the paid ones beside the source. With one target this is the paper's loss.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from keylatch.locks._augmentation import Augment, no_augment
from keylatch.locks._input_spec import InputSpec
from keylatch.locks._key_training_data import seed_for
from keylatch.locks._key_training_report import TrainingProgress, told
from keylatch.locks._mask_pruning._batches import (
    Batches,
    DataFreeBatches,
    GivenBatches,
    SourceFreeBatches,
)
from keylatch.locks._mask_pruning._domains import Domains, Loader, Setting, overlaps, read_domains
from keylatch.locks._mask_pruning._learner import Learner
from keylatch.locks._mask_pruning._objective import MADE_TARGET_CAP, TARGET_CAP, TARGET_WEIGHT, Objective
from keylatch.locks._mask_pruning._overlap import DomainWarning
from keylatch.locks._mask_pruning._report import DomainMaskReport, DomainMasks, MaskReport
from keylatch.locks._mask_pruning._scores import DomainScores, Granularity, maskable_weights
from keylatch.locks._mask_pruning._settings import LearningSettings
from keylatch.locks._mask_pruning._statistics import normalizations
from keylatch.locks._training_checkpoint import (
    require_place,
    resume,
    save_checkpoint,
)
from keylatch.locks._training_device import random_numbers, training_device
from keylatch.locks._training_hints import Hints, map_layers, take_hints

LEARNING_RATE = 0.02
OTHERS = "others"
# Beside the loss, where the source is made. Chosen with the cap on training images that were held out: at 1 masks took
# no target away at all, without hints USPS kept 88 % instead of 95.
_HINT_WEIGHT = 0.03


def learn_domain_masks(
    model: nn.Module,
    spec: InputSpec,
    *,
    setting: Setting = "SA",
    source: Loader | None = None,
    targets: Mapping[str, Loader] | None = None,
    granularity: Granularity = "element",
    layers: Sequence[str] | None = None,
    target_weight: float = TARGET_WEIGHT,
    target_cap: float | None = None,
    epochs: int = 12,
    batch: int = 64,
    learning_rate: float = LEARNING_RATE,
    augment: Augment = no_augment,
    device: str | torch.device | None = None,
    mixed_precision: bool | None = None,
    checkpoint: str | PathLike[str] | None = None,
    seed: int = 0,
    progress: Callable[[TrainingProgress], None] | None = None,
) -> DomainMasks:
    """Learn masks on a frozen network (MAP, arXiv 2403.04149): Adam on the scores, one cosine cycle.

    Weights, biases and batch-normalization statistics stay as they are. Loaders are read once, into memory; they give
    pixels without normalization, as for `fine_tune`.

    Args:
        model: A classifier from an image batch to (N, classes) logits. Not changed.
        spec: Size and normalization of its images; float32.
        setting: ``SA``: source and targets are given, labeled. ``SF``: only targets are given, and their labels are not
            looked at: the source is made by a generator, targets are labeled by the model. ``DF``: nothing is given;
            source and diverse neighbors of it are made, and what is withheld for them is called ``others``. Where the
            source is made, masks are also held to the model's own feature maps of it (FitNets, arXiv 1412.6550).
        source: Batches of images (N, C, H, W), uint8 or float in [0, 1], and labels (N,) int64: what the model is to
            serve without a license.
        targets: The same, by name: domains that a license brings; for SF images alone will do.
        granularity: A score for each weight, ``element``, or for each output channel, ``channel``.
        layers: Names of the weights that may be withheld; default all convolutions' and linear layers'.
        target_weight: lambda.
        target_cap: alpha; default 1, the paper's, and 0.5 where the source is made.
        epochs: Passes over the source images (SA), the target images (SF), 2,048 made ones (DF). Where images are made,
            the first half trains their generator alone.
        batch: Images of each domain in a step.
        learning_rate: Of the scores, at first. They start up to 1 above their threshold.
        augment: Changes a batch of pixels, as for `fine_tune`; default nothing.
        device: Where to compute; default the GPU if there is one.
        mixed_precision: As for `fine_tune`; default on a GPU only.
        checkpoint: A file that is replaced after each epoch; an interrupted run goes on from it, on a CPU with the same
            number of threads to the very same masks. Keep it as secret as the vault.
        seed: Of batches and generators; torch's global generators are put back.
        progress: Called after each epoch; its accuracy is that on source images with all masks applied. Default: a line
            and a bar on a terminal.

    Returns:
        The masks and how they were learned; give them to `domain_lock`, `masked_model`, `measure_domains`.

    Raises:
        LockError: Images, classes, network or arguments do not fit together, a domain is empty, the checkpoint is of
            another run, or the loss is not finite.
        OutputError: The checkpoint cannot be written.

    Warns:
        DomainWarning: Domains overlap, a target lacks classes, or images are made for a network without batch
            normalizations.
    """
    if target_cap is None:
        target_cap = TARGET_CAP if setting == "SA" else MADE_TARGET_CAP
    settings = LearningSettings(
        setting, granularity, tuple(layers) if layers is not None else None, Objective(target_weight, target_cap),
        epochs, batch, learning_rate, training_device(device), mixed_precision, seed, augment,
    )  # fmt: skip
    settings.require(spec)
    path = None if checkpoint is None else require_place(Path(checkpoint))
    network = copy.deepcopy(model).to(settings.device).eval().requires_grad_(False)
    network = convert_conv2d_weight_memory_format(network, torch.channels_last)
    originals = maskable_weights(network, layers)
    domains = read_domains(network, spec, setting, source, targets, settings.device)
    found = overlaps(network, spec, domains, settings.device, seed)
    known = len(normalizations(network))
    if setting != "SA" and not known:
        _warn_of_no_statistics()
    names = list(domains.targets) or [OTHERS]
    with random_numbers(settings.device, seed_for(seed, "start")):
        scores = DomainScores(originals, names, granularity).to(settings.device)
        batches = _batches(network, spec, domains, settings)
    hints = _hints(network, spec) if domains.source is None else None
    learner = Learner(network, spec, scores, originals, settings, hints)
    state = learner.start(batches)
    run = {} if path is None else settings.describe(model, spec, domains)
    if path is not None:
        resume(path, run, state)
    with told(progress) as tell:
        while len(state.history) < epochs:
            began = time.monotonic()
            state.record(learner.epoch(state, batches, names), keep_best=False)
            state.seconds += time.monotonic() - began
            if path is not None:
                save_checkpoint(path, run, state)
            last = state.history[-1]
            tell(TrainingProgress(len(state.history), epochs, last.loss, last.accuracy, state.seconds))
    masks = learner.scores.masks(originals)
    total = sum(weight.numel() for weight in originals.values())
    given = 0 if domains.source is None else len(domains.source)
    report = MaskReport(
        setting, granularity, tuple(_domain_report(name, masks[name], domains, total) for name in names), total, given,
        known, found, len(state.history), state.seconds, tuple(state.history),
    )  # fmt: skip
    return DomainMasks(masks, report)


def _domain_report(name: str, mask: Mapping[str, torch.Tensor], domains: Domains, total: int) -> DomainMaskReport:
    withheld = sum(int(part.sum()) for part in mask.values())
    images = len(domains.targets[name]) if name in domains.targets else 0
    return DomainMaskReport(name, images, withheld, withheld / total)


def _warn_of_no_statistics() -> None:
    warnings.warn(
        "the network has no batch-normalization statistics to fit made source images to: only the classes that it sees "
        "in them and their smoothness are fitted, and masks will cost the source more",
        DomainWarning,
        stacklevel=3,
    )


def _hints(network: nn.Module, spec: InputSpec) -> Hints | None:
    """Its own feature maps; None if it has none."""
    layers = map_layers(network, spec)
    return take_hints(network, layers, spec, weight=_HINT_WEIGHT) if layers else None


def _batches(network: nn.Module, spec: InputSpec, domains: Domains, settings: LearningSettings) -> Batches:
    if domains.source is not None:
        return GivenBatches(domains.source, domains.targets, settings.batch, settings.device)
    made = (network, spec, domains.classes, settings.batch, settings.device, settings.autocast)
    if domains.targets:
        return SourceFreeBatches(*made, targets=domains.targets)
    return DataFreeBatches(*made, neighbors=OTHERS)
