"""One epoch of training under a key: steps, learning rates, losses."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from keylatch.errors import LockError
from keylatch.locks._augmentation import Augment, augmented
from keylatch.locks._input_spec import InputSpec
from keylatch.locks._key_accuracy import checked_scores
from keylatch.locks._key_training_data import IGNORED, ImageSet, generator_for, seed_for
from keylatch.locks._training_checkpoint import Run, TrainingState, describe_model, key_digest
from keylatch.locks._training_device import random_numbers, rehearsal
from keylatch.locks._training_hints import Hints
from keylatch.locks._training_key import TrainingKey, describe_key

_MOMENTUM, _WEIGHT_DECAY = 0.9, 5e-4
_WARM_UP_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    epochs: int
    batch: int
    learning_rate: float
    augment: Augment
    hints: tuple[str, ...]
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
            "hints": "+".join(self.hints),
            "augment": getattr(self.augment, "__qualname__", type(self.augment).__qualname__),
            "spec": str(spec.to_json()), **describe_key(key), **describe_model(model),
            "training images": f"{len(train)}", "validation images": f"{len(validation)}",
            "pixels or labels": hashlib.sha256(b"images" + train.digest + validation.digest).digest(),
            "key": key_digest(key.to_arrays(), train.digest),
        }  # fmt: skip


def start(network: nn.Module, settings: TrainingSettings) -> TrainingState:
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


def train_epoch(
    state: TrainingState,
    settings: TrainingSettings,
    data: ImageSet,
    answer: Callable[[torch.Tensor], Any],
    hints: Hints | None,
) -> float:
    """Train on all images once.

    Args:
        state: Network and optimizer; changed.
        settings: Of the training.
        data: The images.
        answer: The network's answer under the key to pixels (N, C, H, W).
        hints: What its feature maps are to be; None for labels alone.

    Returns:
        The mean loss of the labels, in nats.

    Raises:
        LockError: If it is no number.
    """
    done, device = len(state.history), settings.device
    # Parts of almost one size, none of a single image, which batch normalization could not train on.
    parts = min(-(-len(data) // settings.batch), len(data) // 2)
    order = torch.randperm(len(data), generator=generator_for(settings.seed, f"batches {done}"))
    total = torch.zeros((), device=device)
    state.network.train()
    watched = nullcontext() if hints is None else hints.watching(state.network)
    with watched, random_numbers(device, seed_for(settings.seed, f"epoch {done}")):
        for step, chosen in enumerate(order.tensor_split(parts), start=done * parts):
            for group in state.optimizer.param_groups:
                group["lr"] = settings.rate(step, settings.epochs * parts)
            pixels, plain, hinted = _batch(data, chosen, settings)
            with settings.autocast():
                scores = checked_scores(answer(pixels), len(pixels), data)
                distance = 0.0 if hints is None else hints.distance(plain, hinted)
            labels = data.labels[chosen].to(device)
            loss = functional.cross_entropy(scores.float(), labels, ignore_index=IGNORED if data.is_dense else -100)
            state.optimizer.zero_grad()
            state.scaler.scale(loss + distance).backward()  # type: ignore[no-untyped-call]
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


def _batch(
    data: ImageSet, chosen: torch.Tensor, settings: TrainingSettings
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """A step's pixels, the plain ones that their hints come from, changed alike, and which get some; None for all."""
    shown, device = data.images[chosen].to(settings.device), settings.device
    if data.originals is None or not settings.hints:
        pixels = augmented(shown, settings.augment)
        return pixels, pixels, None
    plain, hinted = data.originals.of(chosen, shown)
    with rehearsal(device):
        plain = augmented(plain, settings.augment)
    return augmented(shown, settings.augment), plain, hinted
