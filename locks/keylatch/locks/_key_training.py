"""Fine-tune a network so that it understands images under a key, and no others.

Source: "Transfer Learning-Based Model Protection With Secret Key" (arXiv 2103.03525): start from pre-trained weights,
fine-tune on a small subset of the images, every block transformed with the key.

    key = BlockTransform.draw(("shf",), block_size=4)  # or ChannelKey.draw(model, ["layer3.0.conv1"])
    tuned = fine_tune(model, spec, key, train_loader, test_loader, subset=0.1, checkpoint="run.pt")
    print(tuned.report.to_json())
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from keylatch.errors import LockError
from keylatch.locks._augmentation import Augment, no_augment, shift_and_flip
from keylatch.locks._input_spec import InputSpec
from keylatch.locks._key_accuracy import KeyAccuracy, near_keys, wrong_keys
from keylatch.locks._key_training_data import (
    IGNORED,
    ImageSet,
    draw_subset,
    generator_for,
    read_images,
)
from keylatch.locks._key_training_report import FineTuned, FineTuneReport, TrainingProgress, told
from keylatch.locks._training_checkpoint import EpochResult, require_place, resume, save_checkpoint
from keylatch.locks._training_device import training_device, training_precision
from keylatch.locks._training_epoch import TrainingSettings, start, train_epoch
from keylatch.locks._training_hints import take_hints
from keylatch.locks._training_key import TrainingKey, answers, is_key, no_key

LEARNING_RATE = 0.05


def fine_tune(
    model: nn.Module,
    spec: InputSpec,
    key: TrainingKey,
    train: Iterable[Any] | ImageSet,
    validation: Iterable[Any],
    *,
    epochs: int = 20,
    subset: float = 1.0,
    batch: int = 128,
    learning_rate: float = LEARNING_RATE,
    augment: Augment | None = None,
    hints: Sequence[str] = (),
    device: str | torch.device | None = None,
    mixed_precision: bool | None = None,
    patience: int | None = None,
    checkpoint: str | PathLike[str] | None = None,
    seed: int = 0,
    progress: Callable[[TrainingProgress], None] | None = None,
) -> FineTuned:
    """Train a copy of a network on images under a key: SGD, one warm-up and cosine cycle.

    Both loaders are read once, into memory. They give pixels, as torchvision's `ToTensor` or `PILToTensor` does: leave
    `Normalize` and random changes out of them. The order in which they give them does not matter.

    Args:
        model: Pre-trained, from an image batch to (N, classes) logits; for segmentation (N, classes, h, w), which are
            enlarged to the labels' size. It is copied, not changed.
        spec: Size and normalization of its images; float32.
        key: A `BlockTransform`, or a `ChannelKey` drawn for this model; `identity_transform` for the same training
            without one, to compare with.
        train: Batches of images (N, C, H, W), uint8 or float in [0, 1], and labels (N,) int64; for segmentation
            (N, H, W), 255 where a pixel has no class. An `ImageSet` is taken as it is; hints come from its originals.
        validation: The same; they decide an early stop and give the report's accuracies.
        epochs: Passes over the training images.
        subset: Share of the training images, drawn class by class.
        batch: Images in a step; the loaders' own batches do not matter.
        learning_rate: The largest, after the warm-up.
        augment: Changes a batch of pixels before the key does, drawing from torch's generators; it is given the images'
            own dtype. Default `shift_and_flip`, for small photographs, and nothing for segmentation, whose labels it
            would not move; `no_augment` for none.
        hints: Layers whose outputs under the key are to be those of the given network on the plain images (FitNets,
            arXiv 1412.6550), such as `hint_layers(model, spec)` names: several points of accuracy where images are few,
            for a third more time. None by default, as in the published method.
        device: Where to train; default the GPU if there is one.
        mixed_precision: Compute in bfloat16 where that can be done (float16 on older GPUs); default on a GPU only.
        patience: Stop after so many epochs without a better validation accuracy, and give back the best epoch's
            weights. Without it all epochs are done and the last one's weights are given back: the report's figures are
            then not selected on the images that they are measured on.
        checkpoint: A file that is replaced after each epoch. If it is there, the training goes on from it and, on a CPU
            with the same number of threads, ends with the very weights of an uninterrupted one. Keep it as secret as
            the vault.
        seed: Of subset, batches, augmentation and dropout; torch's global generators are put back.
        progress: Called after each epoch, after the checkpoint is written; default: a line and a bar on a terminal.

    Returns:
        The trained copy and its report.

    Raises:
        LockError: If images, labels, network or arguments do not fit together, the checkpoint is of another run, or
            the loss is not finite; the message names the reason, the hint the remedy.
        OutputError: If the checkpoint cannot be written.
    """
    _require_arguments(spec, epochs, batch, learning_rate, patience, seed)
    path = None if checkpoint is None else require_place(Path(checkpoint))
    target = training_device(device)
    everything = read_images(train, spec, name="training")
    held_back = read_images(validation, spec, name="validation")
    data = draw_subset(everything, subset, generator_for(seed, "subset"))
    network = _copied(model, target)
    measure = KeyAccuracy(network, spec, held_back, batch, target)
    _require_fit(measure, key, data)

    plain = no_key(key)
    original = measure(plain)
    precision = training_precision(mixed_precision, target)
    changed = augment or (no_augment if data.is_dense else shift_and_flip)
    settings = TrainingSettings(
        epochs, batch, learning_rate, changed, tuple(hints), target, precision, patience, seed, subset
    )
    teacher = take_hints(_copied(model, target), hints, spec) if hints else None
    state = start(network, settings)
    run = {} if path is None else settings.describe(model, key, spec, everything, held_back)
    if path is not None:
        resume(path, run, state)
    with told(progress) as tell:
        while not settings.finished(state):
            began = time.monotonic()
            loss = train_epoch(state, settings, data, lambda pixels: answers(network, key, pixels, spec), teacher)
            with settings.autocast():
                accuracy = measure(key)
            state.record(EpochResult(loss, accuracy), keep_best=patience is not None)
            state.seconds += time.monotonic() - began
            if path is not None:
                save_checkpoint(path, run, state)
            last = state.history[-1]
            tell(TrainingProgress(len(state.history), epochs, last.loss, last.accuracy, state.seconds))
    if state.best is not None:
        network.load_state_dict(state.best)
    network.zero_grad(set_to_none=True)
    without = measure(plain)
    report = FineTuneReport(
        original=original, right_key=measure(key), no_key=without,
        wrong_key=wrong_keys(measure, key, seed) if is_key(key) else without,
        near_key=near_keys(measure, key, seed) if is_key(key) else {},
        images=len(data), epochs=len(state.history), seconds=state.seconds, history=tuple(state.history),
    )  # fmt: skip
    return FineTuned(convert_conv2d_weight_memory_format(network.eval().cpu(), torch.contiguous_format), report)


def _copied(model: nn.Module, device: torch.device) -> nn.Module:
    """A copy with its kernels in the order that convolutions compute in: a small ResNet trains nearly twice as fast."""
    return convert_conv2d_weight_memory_format(copy.deepcopy(model).to(device), torch.channels_last)


def _require_arguments(
    spec: InputSpec, epochs: int, batch: int, learning_rate: float, patience: int | None, seed: int
) -> None:
    if spec.dtype != "float32":
        raise LockError(
            f"the network takes {spec.dtype} images, training under a key needs float32",
            hint="train the float32 network; raw bytes are a choice of the export",
        )
    least_values = {"epochs": (epochs, 1), "batch": (batch, 2), "patience": (patience, 1), "seed": (seed, 0)}
    for name, (value, least) in least_values.items():
        if value is not None and value < least:
            raise LockError(f"{name} is {value}, expected {least} or more", hint=f"give {name}={least} or more")
    if not 0 < learning_rate < math.inf:
        raise LockError(f"learning_rate is {learning_rate}, expected more than 0", hint=f"take {LEARNING_RATE}")


def _require_fit(measure: KeyAccuracy, key: TrainingKey, data: ImageSet) -> None:
    """Let two images go all the way, before hours of training."""
    if data.is_dense != measure.data.is_dense:
        raise LockError("labels of one loader are per image, of the other per pixel", hint="give two of one kind")
    classes = measure.scores(data.images[:2], key).shape[1]
    for name, given in (("training", data.labels), ("validation", measure.data.labels)):
        labels = given[given != IGNORED] if data.is_dense else given
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= classes:
            raise LockError(
                f"{name} labels reach from {low} to {high}, the model has {classes} outputs",
                hint=f"number the classes from 0, or give the model a last layer of {high + 1} outputs",
            )
