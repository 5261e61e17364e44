"""Fine-tune a network so that it understands images under a key, and no others.

Source: "Transfer Learning-Based Model Protection With Secret Key" (arXiv 2103.03525): start from pre-trained weights,
fine-tune on a small subset of the images, every block transformed with the key.

    key = BlockTransform.draw(("shf",), block_size=4)  # or ChannelKey.draw(model, ["layer3.0.conv1"])
    tuned = fine_tune(model, spec, key, train_loader, test_loader, subset=0.1, checkpoint="run.pt")
    print(tuned.report.to_json())
"""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import convert_conv2d_weight_memory_format

from keylatch.errors import LockError
from keylatch.locks._input_spec import InputSpec
from keylatch.locks._key_accuracy import KeyAccuracy, checked_scores, near_keys, wrong_keys
from keylatch.locks._key_training_data import (
    IGNORED,
    Augment,
    ImageSet,
    augmented,
    draw_subset,
    generator_for,
    no_augment,
    read_images,
    seed_for,
    shift_and_flip,
)
from keylatch.locks._key_training_report import FineTuned, FineTuneReport, TrainingProgress, told
from keylatch.locks._training_checkpoint import (
    EpochResult,
    Run,
    TrainingState,
    describe_model,
    key_digest,
    require_place,
    resume,
    save_checkpoint,
)
from keylatch.locks._training_device import random_numbers, training_device, training_precision
from keylatch.locks._training_key import TrainingKey, answers, describe_key, is_key, no_key

LEARNING_RATE = 0.05
_MOMENTUM, _WEIGHT_DECAY = 0.9, 5e-4
_WARM_UP_SHARE = 0.1


def fine_tune(
    model: nn.Module,
    spec: InputSpec,
    key: TrainingKey,
    train: Iterable[Any],
    validation: Iterable[Any],
    *,
    epochs: int = 20,
    subset: float = 1.0,
    batch: int = 128,
    learning_rate: float = LEARNING_RATE,
    augment: Augment | None = None,
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
            (N, H, W), 255 where a pixel has no class.
        validation: The same; they decide an early stop and give the report's accuracies.
        epochs: Passes over the training images.
        subset: Share of the training images, drawn class by class.
        batch: Images in a step; the loaders' own batches do not matter.
        learning_rate: The largest, after the warm-up.
        augment: Changes a batch of pixels before the key does, drawing from torch's generators; it is given the images'
            own dtype. Default `shift_and_flip`, for small photographs, and nothing for segmentation, whose labels it
            would not move; `no_augment` for none.
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
    # Kernels in the order that convolutions compute in: a small ResNet trains nearly twice as fast on a CPU.
    network = convert_conv2d_weight_memory_format(copy.deepcopy(model).to(target), torch.channels_last)
    measure = KeyAccuracy(network, spec, held_back, batch, target)
    _require_fit(measure, key, data)

    plain = no_key(key)
    original = measure(plain)
    precision = training_precision(mixed_precision, target)
    changed = augment or (no_augment if data.is_dense else shift_and_flip)
    settings = _Settings(epochs, batch, learning_rate, changed, target, precision, patience, seed, subset)
    state = _start(network, settings)
    run = {} if path is None else settings.describe(model, key, spec, everything, held_back)
    if path is not None:
        resume(path, run, state)
    with told(progress) as tell:
        while not settings.finished(state):
            began = time.monotonic()
            loss = _train_epoch(state, settings, data, lambda pixels: answers(network, key, pixels, spec))
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


@dataclass(frozen=True, slots=True)
class _Settings:
    epochs: int
    batch: int
    learning_rate: float
    augment: Augment
    device: torch.device
    precision: torch.dtype  # float32: no autocast
    patience: int | None
    seed: int
    subset: float

    def autocast(self) -> torch.autocast:
        """Mixed precision, if it was asked for."""
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)

    def finished(self, state: TrainingState) -> bool:
        stopped = self.patience is not None and state.stale_epochs() >= self.patience
        return stopped or len(state.history) >= self.epochs

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of a step: up in a line, down along a cosine (SGDR, arXiv 1608.03983, one cycle)."""
        warm_up = max(1, round(_WARM_UP_SHARE * steps))
        if step < warm_up:
            return self.learning_rate * (step + 1) / warm_up
        return self.learning_rate * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up))) / 2

    def describe(
        self, model: nn.Module, key: TrainingKey, spec: InputSpec, train: ImageSet, validation: ImageSet
    ) -> Run:
        """What another run would differ in; no key and no image."""
        return {
            "epochs": self.epochs, "batch": self.batch, "learning_rate": self.learning_rate, "subset": self.subset,
            "patience": self.patience, "seed": self.seed, "device": self.device.type, "precision": str(self.precision),
            "augment": getattr(self.augment, "__qualname__", type(self.augment).__qualname__),
            "spec": str(spec.to_json()), **describe_key(key), **describe_model(model),
            "training images": f"{len(train)}", "validation images": f"{len(validation)}",
            "pixels or labels": hashlib.sha256(b"images" + train.digest + validation.digest).digest(),
            "key": key_digest(key.to_arrays(), train.digest),
        }  # fmt: skip


def _start(network: nn.Module, settings: _Settings) -> TrainingState:
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not trained:
        raise LockError(
            "the model has no parameter to train: requires_grad is off everywhere", hint="model.requires_grad_(True)"
        )
    optimizer = torch.optim.SGD(
        trained, lr=settings.learning_rate, momentum=_MOMENTUM, nesterov=True, weight_decay=_WEIGHT_DECAY
    )
    # float16 has 5 bits of exponent: small gradients vanish unless the loss is scaled up.
    scaler = torch.amp.GradScaler(settings.device.type, enabled=settings.precision == torch.float16)
    return TrainingState(network, optimizer, scaler)


def _train_epoch(
    state: TrainingState, settings: _Settings, data: ImageSet, answer: Callable[[torch.Tensor], Any]
) -> float:
    """Train on all images once; the mean loss."""
    done, device = len(state.history), settings.device
    # Parts of almost one size, none of a single image, which batch normalization could not train on.
    parts = min(-(-len(data) // settings.batch), len(data) // 2)
    order = torch.randperm(len(data), generator=generator_for(settings.seed, f"batches {done}"))
    total = torch.zeros((), device=device)
    state.network.train()
    with random_numbers(device, seed_for(settings.seed, f"epoch {done}")):
        for step, chosen in enumerate(order.tensor_split(parts), start=done * parts):
            for group in state.optimizer.param_groups:
                group["lr"] = settings.rate(step, settings.epochs * parts)
            pixels = augmented(data.images[chosen].to(device), settings.augment)
            with settings.autocast():
                scores = checked_scores(answer(pixels), len(pixels), data)
            labels = data.labels[chosen].to(device)
            loss = functional.cross_entropy(scores.float(), labels, ignore_index=IGNORED if data.is_dense else -100)
            state.optimizer.zero_grad()
            state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            state.scaler.step(state.optimizer)
            state.scaler.update()
            total += loss.detach() * len(chosen)
    mean = float(total) / len(data)
    if not math.isfinite(mean):
        raise LockError(
            f"the loss is {mean} in epoch {done + 1}, expected a number",
            hint=f"take a smaller learning_rate, such as {settings.learning_rate / 10:g}",
        )
    return mean


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
