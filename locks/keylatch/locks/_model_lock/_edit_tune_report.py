"""What a training on edited images gives."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True, slots=True)
class EditTuneReport:
    """Top-1 accuracies in percent, for segmentation mean IoU, all on the same validation images.

    Attributes:
        original: The given network on plain images.
        predicted: The given network on edited images: what a lock may be expected to leave of it.
        unlocked: The trained network on images edited under the key.
        locked: The trained network on plain images: what is left to whoever takes the edit off.
        file_alone: The trained network on images edited by the locked defaults: what the file does by itself.
        near_key: By the share of embedding and noise that is drawn anew.
        wrong_prompt: By prompt, with all else of the key right.
        images: Training images.
        wrong_images: Those with wrong labels beside them.
        epochs: Done.
        seconds: Spent in training, editing left out.
    """

    original: float
    predicted: float
    unlocked: float
    locked: float
    file_alone: float
    near_key: dict[str, float]
    wrong_prompt: dict[str, float]
    images: int
    wrong_images: int
    epochs: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class EditTuned:
    """A network trained on edited images.

    Attributes:
        model: In evaluation mode, on the CPU; takes normalized edited images.
        report: What it can do with the key and without.
    """

    model: nn.Module
    report: EditTuneReport
