"""What a change is, what it is applied to, and a row of results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch

from keylatch.audit._attack import Predict
from keylatch.audit._owner import Array
from keylatch.audit._target import Target

# Gate tensor name to value, in the artifact's dtypes; {} for the locked defaults.
Values: TypeAlias = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class SurvivalRow:
    """How a locked model fares under a change.

    Attributes:
        name: The change.
        setting: Its strength, e.g. ``75``; ``""`` if it has none.
        unlocked: Top-1 in percent with the secret values in place; None without the owner, or if it cannot be run.
        locked: Top-1 in percent as an outsider has it; None if it cannot be run.
        note: How it was done, what was left out, or why it cannot be done.
    """

    name: str
    setting: str
    unlocked: float | None
    locked: float | None
    note: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """What a change is applied to.

    Attributes:
        target: The locked model.
        values: The owner's secret values; {} without an owner.
        images: (n, *shape) that accuracies are measured on, as the model takes them.
        calibration: (m, *shape) other images, for what has to see some.
    """

    target: Target
    values: Values
    images: torch.Tensor
    calibration: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Changed:
    """A model or its images after a change.

    Attributes:
        open: From gate values to the changed model with these values in place, in memory only.
        images: The images that it is measured on; None: those of the subject.
        note: For the row.
    """

    open: Callable[[Values], Predict]
    images: torch.Tensor | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """Something that users do to a model or to its images.

    Attributes:
        name: E.g. ``pruning``.
        setting: Its strength.
        apply: Does it. Raises `Unable` where it cannot be done.
        most_images: Images to measure on, because it runs slowly.
    """

    name: str
    setting: str
    apply: Callable[[Subject], Changed]
    most_images: int = 1000


class Unable(Exception):  # noqa: N818 - a result, not an error: it becomes the row's note
    """A change cannot be done to this model; the message says why."""
