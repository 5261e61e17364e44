"""From measurements of single cells to rows of the result."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import torch

from keylatch.audit._cells import Measurement
from keylatch.audit._plan import Cell
from keylatch.audit._result import AttackResult, BaselineResult
from keylatch.audit._verdict import beats, better_baseline

Group = Sequence[tuple[Cell, Measurement]]
UNJUDGED = "above the baselines that were measured, but one of its own is missing or had less time: not judged"


def grouped(measured: Group) -> list[Group]:
    """Cells that differ by their seeds only, together; in the order of the plan."""
    groups: dict[str, list[tuple[Cell, Measurement]]] = {}
    for cell, measurement in measured:
        key = f"{cell.is_baseline} {cell.title} {cell.variant.given} {dict(cell.variant.settings)}"
        groups.setdefault(key, []).append((cell, measurement))
    return list(groups.values())


def chance_baseline(labels: torch.Tensor, classes: int) -> BaselineResult:
    """What guessing gets: one class in so many, or always the most frequent one if that is better."""
    most = float(torch.bincount(labels, minlength=classes).max()) / len(labels) * 100
    even = 100 / classes
    note = f"one of {classes} classes" if even >= most else "always the most frequent class"
    best = max(even, most)
    return BaselineResult("chance", 0, best, best, best, 0, note)


def baseline_row(group: Group) -> BaselineResult:
    """A baseline over its seeds."""
    cell = group[0][0]
    accuracies = [measurement.accuracy for _, measurement in group]
    note = "cut short by the clock" if any(measurement.truncated for _, measurement in group) else ""
    return BaselineResult(
        cell.attack.name,
        cell.variant.given.labeled,
        fmean(accuracies),
        min(accuracies),
        max(accuracies),
        len(group),
        note,
    )


def had_less_time(baseline: Group, attack: Group) -> bool:
    """Whether a baseline with as many labeled images was cut short before it had the time that the attack took."""
    if baseline[0][0].variant.given.labeled != attack[0][0].variant.given.labeled:
        return False
    taken = fmean(measurement.seconds for _, measurement in attack)
    return any(measurement.truncated and measurement.allowed_seconds < taken for _, measurement in baseline)


def attack_row(
    group: Group, baselines: Sequence[BaselineResult], chance: BaselineResult, *, judged: bool = True
) -> AttackResult:
    """An attack's budget over its seeds, beside its baseline.

    Args:
        group: Its cells.
        baselines: All that were measured.
        chance: Guessing.
        judged: Whether all its baselines were measured, with as much time; a break is not claimed without.
    """
    cell, measurements = group[0][0], [measurement for _, measurement in group]
    variant = cell.variant
    accuracies = [measurement.accuracy for measurement in measurements]
    baseline = better_baseline(variant.given, baselines, chance)
    above = beats(fmean(accuracies), baseline.accuracy)
    notes = [*_notes(measurements, accuracies, baseline, above=above), *([] if judged or not above else [UNJUDGED])]
    return AttackResult(
        name=cell.attack.name,
        variant=variant.label or str(variant.given),
        summary=cell.attack.summary,
        given=str(variant.given),
        labeled=variant.given.labeled,
        unlabeled=variant.given.unlabeled,
        recovered=fmean(accuracies),
        low=min(accuracies),
        high=max(accuracies),
        baseline=baseline.accuracy,
        baseline_name=baseline.name,
        broken=variant.counts and above and judged,
        counts=variant.counts,
        seeds=len(group),
        seconds=fmean(measurement.seconds for measurement in measurements),
        cost=_mean_cost(measurements),
        truncated=all(measurement.truncated for measurement in measurements),  # one in full is a measurement
        note="; ".join(notes),
        signs_right=_mean_signs(measurements),
    )


def _notes(
    measurements: Sequence[Measurement], accuracies: Sequence[float], baseline: BaselineResult, *, above: bool
) -> list[str]:
    notes = list(dict.fromkeys(measurement.note for measurement in measurements if measurement.note))
    lucky = sum(beats(accuracy, baseline.accuracy) for accuracy in accuracies)
    if lucky and not above:
        notes.append(f"{lucky} of {len(accuracies)} seeds above the baseline's margin, the mean is not")
    if above and baseline.note and baseline.name != "chance":
        notes.append(f"the baseline was {baseline.note}")
    return notes


def _mean_cost(measurements: Sequence[Measurement]) -> dict[str, float]:
    units = dict.fromkeys(unit for measurement in measurements for unit in measurement.cost)
    return {unit: fmean(m.cost[unit] for m in measurements if unit in m.cost) for unit in units}


def _mean_signs(measurements: Sequence[Measurement]) -> tuple[float, ...]:
    known = [measurement.signs_right for measurement in measurements if measurement.signs_right]
    return tuple(fmean(shares) for shares in zip(*known, strict=False))
