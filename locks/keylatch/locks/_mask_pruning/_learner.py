"""One epoch of learning masks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from keylatch.errors import LockError
from keylatch.locks._augmentation import augmented
from keylatch.locks._input_spec import InputSpec
from keylatch.locks._key_training_data import normalized, seed_for
from keylatch.locks._mask_pruning._batches import Batches
from keylatch.locks._mask_pruning._objective import Batch
from keylatch.locks._mask_pruning._scores import DomainScores
from keylatch.locks._mask_pruning._settings import LearningSettings
from keylatch.locks._training_checkpoint import EpochResult, TrainingState
from keylatch.locks._training_device import random_numbers
from keylatch.locks._training_hints import Hints

_GENERATOR_RATE = 5e-3
# Adam moves every score equally far, however little its weight matters; a large epsilon beside gradients of unit size
# makes steps follow influence, and masks some ten times smaller.
_EPSILON = 1.0
_TINY = 1e-20
_MEASURED_IMAGES = 1_000


@dataclass(frozen=True, slots=True, eq=False)
class Learner:
    """Takes scores through epochs.

    Attributes:
        network: Frozen, in evaluation mode.
        spec: Of its images.
        scores: What is learned.
        originals: The weights that masks may take from.
        settings: How.
        hints: The network's own feature maps of source images, which masks are to leave; None if the source is given.
    """

    network: nn.Module
    spec: InputSpec
    scores: DomainScores
    originals: Mapping[str, torch.Tensor]
    settings: LearningSettings
    hints: Hints | None

    def start(self, batches: Batches) -> TrainingState:
        """Two groups of one optimizer: scores, and what makes images. A group without gradients is left alone."""
        rate = self.settings.learning_rate
        groups: list[dict[str, Any]] = [{"params": list(self.scores.parameters()), "lr": rate, "eps": _EPSILON}]
        made = [parameter for parameter in batches.made.parameters() if parameter.requires_grad]
        if made:
            groups.append({"params": made, "lr": _GENERATOR_RATE})
        scaler = torch.amp.GradScaler(self.settings.device.type, enabled=self.settings.precision == torch.float16)
        everything = nn.ModuleList([self.scores, batches.made])
        return TrainingState(everything, torch.optim.Adam(groups), scaler)

    def epoch(self, state: TrainingState, batches: Batches, names: Sequence[str]) -> EpochResult:
        """One epoch: its mean loss, and the accuracy on source images with all masks applied.

        While only generators are trained, the loss is theirs.
        """
        done, settings, losses = len(state.history), self.settings, _Mean(self.settings.device)
        state.optimizer.param_groups[0]["lr"] = settings.rate(done)
        learning = done >= settings.warm_up

        def train(loss: torch.Tensor) -> None:
            self._step(state, loss)
            if not learning:
                losses.add(loss)

        with random_numbers(settings.device, seed_for(settings.seed, f"masks {done}")):
            for batch in batches.epoch(train):
                if learning:
                    loss = self._loss(batch, _unpaid(names))
                    self._step(state, loss)
                    losses.add(loss)
            accuracy = self._accuracy(batches, names)
        return EpochResult(losses.require_finite(done + 1, settings.learning_rate), accuracy)

    def _step(self, state: TrainingState, loss: torch.Tensor) -> None:
        state.optimizer.zero_grad(set_to_none=True)
        state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        state.scaler.unscale_(state.optimizer)
        _to_unit_size([scores.grad for scores in self.scores.parameters() if scores.grad is not None])
        state.scaler.step(state.optimizer)
        state.scaler.update()

    def _answers(self, images: torch.Tensor, unpaid: Sequence[str]) -> torch.Tensor:
        weights = self.scores.weights(self.originals, unpaid)
        with self.settings.autocast():
            answers: torch.Tensor = functional_call(self.network, weights, (images,))
        return answers

    def _loss(self, batch: Batch, unpaid: Sequence[str]) -> torch.Tensor:
        parts = [batch.source[0], *(pixels for pixels, _ in batch.targets.values())]
        changed = [augmented(pixels, self.settings.augment) for pixels in parts]
        images = torch.cat([normalized(pixels, self.spec) for pixels in changed])
        with nullcontext() if self.hints is None else self.hints.watching(self.network):
            answers = self._answers(images, unpaid)
        loss = self.settings.objective(answers, batch, unpaid)
        if self.hints is None:
            return loss
        with self.settings.autocast():
            return loss + self.hints.distance(changed[0])

    @torch.no_grad()
    def _accuracy(self, batches: Batches, names: Sequence[str]) -> float:
        pixels, labels = batches.source(_MEASURED_IMAGES)
        parts = torch.split(pixels, 4 * self.settings.batch)
        scores = torch.cat([self._answers(normalized(part, self.spec), names) for part in parts])
        return 100 * float((scores.argmax(1) == labels).double().mean())


def _to_unit_size(gradients: Sequence[torch.Tensor]) -> None:
    """Divide by the root mean square over all of them."""
    if gradients:
        squares = sum((gradient**2).sum() for gradient in gradients)
        size = torch.as_tensor(squares / sum(gradient.numel() for gradient in gradients)).sqrt()
        for gradient in gradients:
            gradient.div_(size + _TINY)


class _Mean:
    """A mean that is looked at once, at the end: reading it from a GPU waits."""

    def __init__(self, device: torch.device) -> None:
        self._total, self._count = torch.zeros((), device=device), 0

    def add(self, value: torch.Tensor) -> None:
        self._total, self._count = self._total + value.detach(), self._count + 1

    def require_finite(self, epoch: int, learning_rate: float) -> float:
        mean = float(self._total) / self._count
        if not math.isfinite(mean):
            raise LockError(
                f"the loss is {mean} in epoch {epoch}, expected a number",
                hint=f"take a smaller learning_rate, such as {learning_rate / 10:g}",
            )
        return mean


def _unpaid(names: Sequence[str]) -> list[str]:
    """A random choice of targets that are not paid for, each but the empty one as likely."""
    drawn = torch.rand(len(names)) < 0.5
    while len(names) > 1 and not drawn.any():
        drawn = torch.rand(len(names)) < 0.5
    return [name for name, chosen in zip(names, drawn.tolist(), strict=True) if chosen] or list(names)
