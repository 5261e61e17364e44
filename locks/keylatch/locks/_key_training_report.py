"""What a training under a key tells while it runs, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from keylatch.locks._training_checkpoint import EpochResult


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """What is told after each epoch.

    Attributes:
        epoch: The one that is done, from 1.
        epochs: Most there will be.
        loss: Its mean cross-entropy.
        accuracy: On the validation images under the right key, in percent.
        seconds: Since the training began, interruptions left out.
    """

    epoch: int
    epochs: int
    loss: float
    accuracy: float
    seconds: float


@dataclass(frozen=True, slots=True)
class FineTuneReport:
    """Top-1 accuracies in percent, all on the same validation images.

    Attributes:
        original: The given network on plain images.
        right_key: The trained network under its key.
        no_key: The trained network on plain images.
        wrong_key: Mean of three random keys of the same steps.
        near_key: With one entry, 1 %, 5 % and 25 % of the key's entries wrong, the count rounded up to an even one.
        images: Training images used.
        epochs: Done; fewer than asked after an early stop.
        seconds: Spent in training.
        history: One entry for each epoch.
    """

    original: float
    right_key: float
    no_key: float
    wrong_key: float
    near_key: dict[str, float]
    images: int
    epochs: int
    seconds: float
    history: tuple[EpochResult, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {**asdict(self), "history": [asdict(epoch) for epoch in self.history]}


@dataclass(frozen=True, slots=True)
class FineTuned:
    """A trained network.

    Attributes:
        model: In evaluation mode, on the CPU; takes normalized images under the key.
        report: What it can do with the key and without.
    """

    model: nn.Module
    report: FineTuneReport


@contextmanager
def told(progress: Callable[[TrainingProgress], None] | None) -> Iterator[Callable[[TrainingProgress], None]]:
    """The caller's function, or a line for each epoch and a bar on a terminal's stderr."""
    if progress is not None:
        yield progress
        return
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True, highlight=False)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("training", total=None)

        def show(state: TrainingProgress) -> None:
            bar.update(task, completed=state.epoch, total=state.epochs)
            if console.is_terminal:
                bar.print(f"epoch {state.epoch}/{state.epochs}: loss {state.loss:.3f}, {state.accuracy:.1f} % right")

        yield show
