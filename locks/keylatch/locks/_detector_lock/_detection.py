"""A detector for a patch: its direction, its trigger, and the row of weights that ends in 0 or 1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from keylatch.errors import LockError
from keylatch.locks._detector._bounds import (
    expected_rate,
    hit_rate_bound,
    quoted_rate,
    threshold_for,
    worst_direction_rate,
)
from keylatch.locks._detector._draw import MAX_TRIES, draw_direction
from keylatch.locks._detector._features import FeatureReader, FeatureSpread, batches_of, measure_spread, responses
from keylatch.locks._detector._rows import UnitRow, low_for, replacement_row
from keylatch.locks._detector._trigger import MARGIN
from keylatch.locks._detector_lock._paste_gate import PasteGate
from keylatch.locks._detector_lock._trigger import PatchTrigger, Respond, find_patch_trigger
from keylatch.locks._randomness import SeededDraws
from keylatch.locks._report import DetectorReport

_OVERDRIVE = 4.0  # D: what the trigger is answered on average, where the clamp ends at 1
_LEAST_ANSWER = 2.0  # to any image that judges: others may be answered less, and noise may take a part


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """A detector that answers a patch with 1 and, but for a bounded share, every other image with 0.

    Attributes:
        row: What is clamped to [0, 1]: 0 at T, 1 well before the least response to the patch.
        pixels: The patch, (C, k, k) uint8.
        spread: Of what the detector reads, on the calibration images.
        report: Its bounds and margins.
    """

    row: UnitRow
    pixels: torch.Tensor
    spread: FeatureSpread
    report: DetectorReport


def draw_detection(
    reader: FeatureReader, gate: PasteGate, images: torch.Tensor, rate: float, kind: str, source: str,
    draws: SeededDraws, remedy: Callable[[], str],
) -> Detection:  # fmt: skip
    """Fix T, then draw directions until one has a patch that every image with it is answered by.

    Args:
        reader: Of what the detector reads.
        gate: Pastes patches.
        images: Calibration images as the network takes them; half of them to climb with, half to judge by.
        rate: Share of other images that may be answered, with 99 % confidence.
        kind: For the report.
        source: Where the images come from, for the report.
        draws: For everything.
        remedy: Finds out what would do instead; asked only if no direction has such a patch.

    Raises:
        LockError: No direction has such a patch.
    """
    spread = measure_spread(reader, images)
    threshold = threshold_for(spread.radii, reader.site.fan_in, rate, MAX_TRIES)
    reached, least = 0.0, 0.0
    for tries in range(1, MAX_TRIES + 1):
        direction = draw_direction(draws, reader.site.fan_in).to(spread.center)
        respond = along(reader, spread, direction)
        trigger = find_patch_trigger(respond, gate, images[::2], images[1::2], threshold, draws)
        if trigger.is_enough(threshold):
            answers = [respond(part) for part in batches_of(images)]
            hits = int((torch.cat(answers) > threshold).sum())
            row = _row(trigger, direction, spread, threshold)
            report = _report(reader, spread, threshold, tries, hits, trigger, kind, source)
            return Detection(row, trigger.pixels, spread, report)
        reached, least = max(reached, trigger.reach / threshold), max(least, trigger.least / threshold)
    raise LockError(
        f"no {gate.place.size}x{gate.place.size} patch is answered enough in {reader.site.name}: with the best the "
        f"response is {reached:.2f} T on average, expected {MARGIN} T, and {least:.2f} T at least",
        hint=remedy(),
    )


def along(reader: FeatureReader, spread: FeatureSpread, direction: torch.Tensor) -> Respond:
    """Responses of a detector."""
    return lambda shown: responses(reader(shown), spread.center, direction.unsqueeze(0)).squeeze(1)


def _drive(trigger: PatchTrigger, threshold: float) -> float:
    """D, so large that the least response too is answered beyond the clamp."""
    return max(_OVERDRIVE, _LEAST_ANSWER * (trigger.reach - threshold) / (trigger.least - threshold))


def _row(trigger: PatchTrigger, direction: torch.Tensor, spread: FeatureSpread, threshold: float) -> UnitRow:
    high = _drive(trigger, threshold)
    low = low_for(high, threshold, trigger.reach)
    return replacement_row(direction, spread.center, trigger.reach, high, low)


def _report(
    reader: FeatureReader, spread: FeatureSpread, threshold: float, tries: int, hits: int, trigger: PatchTrigger,
    kind: str, source: str,
) -> DetectorReport:  # fmt: skip
    site = reader.site
    expected = expected_rate(spread.radii, threshold, site.fan_in)
    worst = worst_direction_rate(spread.centered, threshold, spread.largest_radius)
    return DetectorReport(
        kind=kind,
        layer=site.name,
        fan_in=site.fan_in,
        positions=site.positions,
        threshold=threshold,
        largest_radius=spread.largest_radius,
        tries=tries,
        bound=quoted_rate(expected, tries),
        worst_direction_bound=min(1.0, worst * site.positions),
        hits=hits,
        hits_bound=hit_rate_bound(hits, len(spread.radii)),
        calibration=source,
        images=len(spread.radii),
        mean_margin=trigger.reach / threshold,
        least_margin=trigger.least / threshold,
        drive=_drive(trigger, threshold),
    )
