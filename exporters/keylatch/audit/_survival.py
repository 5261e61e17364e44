"""What the audit needs of a survival measurement: how both accuracies bear a change of the model or its images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from keylatch.audit._images import AuditImages
from keylatch.audit._owner import Owner
from keylatch.audit._result import SurvivalRow
from keylatch.audit._scene import Scene
from keylatch.audit._target import Target


class Change(Protocol):
    """A change: pruning, a smaller number type, compressed images."""

    @property
    def name(self) -> str:
        """Short, e.g. ``pruning``."""

    @property
    def setting(self) -> str:
        """How much, e.g. ``50 %``."""


class Measured(Protocol):
    """What is measured of a change: accuracies in percent, None where not measured."""

    @property
    def unlocked(self) -> float | None:
        """With the owner's values."""

    @property
    def locked(self) -> float | None:
        """Without."""

    @property
    def note(self) -> str:
        """In words."""


@dataclass(frozen=True, slots=True)
class Survival:
    """What to measure, and how.

    Attributes:
        changes: All changes.
        measure: Measures one.
    """

    changes: Sequence[Any]
    measure: Callable[[Any, Target, Owner | None, AuditImages], Measured]


def change_facts(change: Change, scene: Scene) -> dict[str, Any]:
    """Everything that the result depends on; the cache's key."""
    return {
        "model_id": scene.target.model_id,
        "change": change.name,
        "version": int(getattr(change, "version", 1)),
        "setting": change.setting,
        "evaluation": scene.images.evaluation.sha256,
        "attacker": scene.images.attacker.sha256,  # which int8 is calibrated on
        "owner": scene.owner is not None,
    }


def row_of(change: Change, measured: Measured) -> SurvivalRow:
    """A row of the result."""
    unlocked, locked = (None if value is None else float(value) for value in (measured.unlocked, measured.locked))
    return SurvivalRow(change.name, change.setting, unlocked, locked, measured.note)


def parse_row(data: Any, change: Change) -> SurvivalRow | None:
    """Read a stored row; None if it is damaged."""
    match data:
        case {"unlocked": float() | None as unlocked, "locked": float() | None as locked, "note": str(note)}:
            return SurvivalRow(change.name, change.setting, unlocked, locked, note)
    return None
