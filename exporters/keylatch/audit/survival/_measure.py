"""Accuracies under a change."""

from __future__ import annotations

import torch

from keylatch.audit._attack import Predict
from keylatch.audit._clock import Clock
from keylatch.audit._images import AuditImages
from keylatch.audit._owner import Owner
from keylatch.audit._target import Target
from keylatch.audit._training import scores
from keylatch.audit.survival._change import Change, Subject, SurvivalRow, Unable
from keylatch.audit.survival._changes import survival_changes

_CALIBRATION_IMAGES = 100


def measure(change: Change, target: Target, owner: Owner | None, images: AuditImages) -> SurvivalRow:
    """Measure one change, on the first of the evaluation images.

    Args:
        change: One of `survival_changes`.
        target: The locked model.
        owner: Whose secret values open it; they are in sessions' memory only, never in a changed graph or a file.
        images: Accuracies are of `evaluation`; calibration images are of `attacker`.

    Returns:
        Accuracies, or None with a note if the change cannot be done to this model.
    """
    count = min(change.most_images, len(images.evaluation))
    values = {} if owner is None else owner.values
    calibration = images.attacker.images[:_CALIBRATION_IMAGES]
    subject = Subject(target, values, images.evaluation.images[:count], calibration)
    labels = images.evaluation.labels[:count]
    try:
        changed = change.apply(subject)
        shown = subject.images if changed.images is None else changed.images
        unlocked, overflow = (None, "") if owner is None else _accuracy(changed.open(values), shown, labels)
        locked, _ = _accuracy(changed.open({}), shown, labels)
    except Unable as reason:
        return SurvivalRow(change.name, change.setting, None, None, str(reason))
    few = f"first {count} of {len(images.evaluation)} images" if count < len(images.evaluation) else ""
    note = "; ".join(filter(None, (changed.note, few, overflow)))
    return SurvivalRow(change.name, change.setting, unlocked, locked, note)


def measure_survival(target: Target, owner: Owner | None, images: AuditImages, clock: Clock) -> list[SurvivalRow]:
    """Measure all changes; those that the clock leaves no time for have a note instead of figures."""
    return [
        SurvivalRow(change.name, change.setting, None, None, "not measured: the time was up")
        if clock.expired
        else measure(change, target, owner, images)
        for change in survival_changes()
    ]


def _accuracy(network: Predict, images: torch.Tensor, labels: torch.Tensor) -> tuple[float, str]:
    """Top-1 in percent, and a remark on scores that are not numbers: those are the change's doing, not the lock's."""
    found = scores(network, images)
    wrong = int((~found.isfinite()).any(1).sum())
    remark = f"unlocked scores overflow on {wrong} of {len(images)} images" if wrong else ""
    return float((found.argmax(1) == labels).double().mean()) * 100, remark
