"""How an attacker without test images chooses between recovered models."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from keylatch.audit._attack import Predict
from keylatch.audit._training import scores

LEAST_HELD_OUT = 50  # labeled images; of fewer, a fifth says nothing
_HELD_OUT_SHARE = 0.2
_SHARPNESS = 3.0  # a trained classifier's scores of one image spread about this far, in natural units


def information(values: torch.Tensor) -> float:
    """How much the predicted class tells of the image, in nats: sharp for each image, balanced over all.

    The mutual information of "Do we really need to access the source data?" (SHOT, arXiv 2002.08546, section 3.2), of
    scores brought to one scale, so that a network whose scores are merely large gains nothing.

    Args:
        values: (n, classes) scores.
    """
    spread = values.double().std().clamp(min=1e-12)
    chances = (values.double() / spread * _SHARPNESS).softmax(1)
    result = _entropy(chances.mean(0)) - _entropy(chances)
    return float(result) if torch.isfinite(result) else -1.0


def unlabeled_merit(images: torch.Tensor) -> Callable[[Predict], tuple[float, float]]:
    """A merit for choosing without labels; larger is better."""
    return lambda predict: (information(scores(predict, images)), 0.0)


def labeled_merit(images: torch.Tensor, labels: torch.Tensor) -> Callable[[Predict], tuple[float, float]]:
    """A merit for choosing with labels: accuracy, then the negative loss."""

    def merit(predict: Predict) -> tuple[float, float]:
        values = scores(predict, images)
        loss = float(functional.cross_entropy(values, labels))
        return float((values.argmax(1) == labels).double().mean()), -loss if loss == loss else -torch.inf

    return merit


def hold_out(labels: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Split the attacker's labeled images: indices to train on, indices to choose by; the same if there are few."""
    order = torch.randperm(len(labels), generator=generator)
    if len(labels) < LEAST_HELD_OUT:
        return order, order
    held = round(_HELD_OUT_SHARE * len(labels))
    return order[held:], order[:held]


def _entropy(chances: torch.Tensor) -> torch.Tensor:
    return -(chances * chances.clamp(min=1e-12).log()).sum(-1).mean()
