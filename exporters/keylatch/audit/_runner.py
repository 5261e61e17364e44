"""Run the cells of an audit: cached ones are read, the others are given their share of the time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import torch

from keylatch.audit._attack import Outcome
from keylatch.audit._cells import CellStore, Measurement
from keylatch.audit._clock import Clock
from keylatch.audit._draw import draw_case
from keylatch.audit._plan import Cell
from keylatch.audit._result import NotRun, SurvivalRow
from keylatch.audit._scene import Scene
from keylatch.audit._survival import Change, Survival, change_facts, parse_row, row_of
from keylatch.audit._timetable import LEAST_SECONDS, Timetable, is_clearly_more
from keylatch.audit._training import accuracy
from keylatch.errors import FormatError, KeylatchError

_NO_TIME = "no time was left"
_EVALUATIONS_OF_A_CHANGE = 3  # of the model locked and unlocked, and what the change itself takes


class Watch(Protocol):
    """Somebody who is shown how it goes on."""

    def begins(self, title: str, done: int, total: int) -> None:
        """A measurement begins."""

    def notes(self, text: str) -> None:
        """Something that is worth saying."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A cell without a measurement, and why."""

    cell: Cell
    reason: str


class Runner:
    """Measures cells one after the other.

    Args:
        scene: What the audit works on.
        store: Results that are there, and where new ones go.
        timetable: Shares the time out.
        watch: Is shown how it goes on.

    Attributes:
        measured: Cells with their measurements, in the order of the plan.
        skipped: Cells without.
        survival: Rows that were measured.
        missing_changes: Changes that were not.
    """

    def __init__(self, scene: Scene, store: CellStore, timetable: Timetable, watch: Watch) -> None:
        self._scene, self._store, self._timetable, self._watch = scene, store, timetable, watch
        self._found: dict[int, Measurement] = {}
        self._reasons: dict[int, str] = {}
        self._cells: Sequence[Cell] = ()
        self._waiting: set[int] = set()  # cells that still count when time is shared out
        self._count = 0
        self._change_seconds = LEAST_SECONDS  # of the slowest so far
        self._survival: Survival | None = None
        self.survival: list[SurvivalRow] = []
        self.missing_changes: list[NotRun] = []

    @property
    def measured(self) -> list[tuple[Cell, Measurement]]:
        """Cells with their measurements, in the order of the plan."""
        return [(cell, self._found[index]) for index, cell in enumerate(self._cells) if index in self._found]

    @property
    def skipped(self) -> list[Skipped]:
        """Cells without a measurement, in the order of the plan."""
        left = [index for index in range(len(self._cells)) if index not in self._found]
        return [Skipped(self._cells[index], self._reasons.get(index, _NO_TIME)) for index in left]

    def run(self, cells: Sequence[Cell], survival: Survival | None = None) -> None:
        """Measure all cells: the first seed's, then the changes, then the other seeds'; then what was cut short.

        Args:
            cells: In the order of a plan.
            survival: Changes to measure, if any.
        """
        self._cells, self._survival = cells, survival
        changes = [] if survival is None else list(survival.changes)
        self._keep_back(len(changes))
        self._read_stored()
        self._waiting = {index for index in range(len(cells)) if self._needs_time(index)}
        first = [index for index, cell in enumerate(cells) if cell.seed == cells[0].seed]
        self._measure_all([index for index in first if index in self._waiting])
        self._measure_changes(changes)
        self._measure_all([index for index in range(len(first), len(cells)) if index in self._waiting])
        while self._measure_all(self._truncated()):
            pass

    def _read_stored(self) -> None:
        for index, cell in enumerate(self._cells):
            facts = cell.facts(self._scene)
            stored = self._store.read(facts)
            if stored is None:
                continue
            try:
                self._found[index] = Measurement.from_json(stored)
            except FormatError:
                self._store.ignore(facts)

    def _needs_time(self, index: int) -> bool:
        return index not in self._found or self._found[index].truncated

    def _measure_all(self, indexes: Sequence[int]) -> bool:
        """Give cells their shares, in this order; whether any was measured."""
        self._waiting.update(indexes)
        count = self._count
        for index in indexes:
            cell, stored = self._cells[index], self._found.get(index)
            weights = sum(self._cells[other].variant.weight for other in self._waiting)
            seconds = self._timetable.share(cell.variant.weight, weights, len(self._waiting))
            self._waiting.discard(index)
            if seconds is not None and (stored is None or is_clearly_more(seconds, stored.allowed_seconds)):
                self._watch.begins(cell.title, len(self._found), len(self._cells))
                self._measure(index, seconds)
        return self._count > count

    def _truncated(self) -> list[int]:
        """Cells that were cut short, baselines first: a weak one would make the lock look broken."""
        cut = [index for index, found in self._found.items() if found.truncated and index not in self._reasons]
        return sorted(cut, key=lambda index: (not self._cells[index].is_baseline, index))

    def _measure(self, index: int, seconds: float) -> None:
        cell = self._cells[index]
        self._count += 1
        try:
            measurement = self._attacked(cell, seconds)
        except KeylatchError as error:
            self._reasons[index] = f"skipped: {error.message}"
            return
        self._found[index] = measurement
        self._store.write(cell.facts(self._scene), measurement.to_json())

    def _attacked(self, cell: Cell, seconds: float) -> Measurement:
        clock = Clock(seconds)
        case = draw_case(self._scene, cell.variant, cell.seed, clock)
        # The attack's generator is its only source of randomness; layers that draw from PyTorch's own are no exception.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(cell.seed)
            outcome = cell.attack.run(case)
            used = clock.elapsed
            self._timetable.ran(used, seconds)
            reached = self.evaluate(outcome)
        return Measurement(
            accuracy=reached,
            seconds=used,
            allowed_seconds=seconds,
            cost=dict(outcome.cost),
            note=outcome.note,
            truncated=outcome.truncated,
            signs_right=self._signs_right(outcome),
        )

    def evaluate(self, outcome: Outcome) -> float:
        """Accuracy on the evaluation images, in percent; how long it takes is kept back for all cells to come."""
        clock = Clock()
        images = self._scene.images.evaluation
        reached = accuracy(outcome.predict, images.images, images.labels)
        self._timetable.evaluation_seconds = max(self._timetable.evaluation_seconds, clock.elapsed)
        return reached

    def _signs_right(self, outcome: Outcome) -> tuple[float, ...]:
        owner = self._scene.owner
        if owner is None or not outcome.signs:
            return ()
        pairs = zip(outcome.signs, owner.signs(self._scene.target), strict=False)
        return tuple(float((found.flatten() == right.flatten()).double().mean()) * 100 for found, right in pairs)

    def _keep_back(self, changes: int) -> None:
        seconds = max(self._change_seconds, _EVALUATIONS_OF_A_CHANGE * self._timetable.evaluation_seconds)
        self._timetable.later_seconds = changes * seconds

    def _measure_changes(self, changes: Sequence[Change]) -> None:
        for place, change in enumerate(changes):
            facts = change_facts(change, self._scene)
            stored = self._store.read(facts)
            row = None if stored is None else parse_row(stored, change)
            if row is None and stored is not None:
                self._store.ignore(facts)
            if row is None:
                row = self._measured_change(change, len(changes) - place)
            if row is not None:
                self.survival.append(row)
            self._keep_back(len(changes) - place - 1)

    def _measured_change(self, change: Change, left: int) -> SurvivalRow | None:
        survival = self._survival
        if survival is None or self._timetable.free_seconds < self._timetable.later_seconds / left:
            self.missing_changes.append(NotRun(change.name, change.setting, _NO_TIME, matters=False))
            return None
        self._watch.begins(f"survival, {change.name} {change.setting}", len(self._found), len(self._cells))
        clock = Clock()
        try:
            measured = survival.measure(change, self._scene.target, self._scene.owner, self._scene.images)
        except KeylatchError as error:
            reason = f"skipped: {error.message}"
            self.missing_changes.append(NotRun(change.name, change.setting, reason, matters=False))
            return None
        self._change_seconds = max(self._change_seconds, clock.elapsed)
        row = row_of(change, measured)
        self._store.write(change_facts(change, self._scene), asdict(row))
        return row
