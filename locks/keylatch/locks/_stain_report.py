"""What staining did, and how often a stain may be found in a network that has none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from keylatch.locks._stain_secret import StainSecret


@dataclass(frozen=True, slots=True)
class StainFacts:
    """One stain.

    Attributes:
        unit: Where it is.
        tries: Directions that were drawn for it.
        bound: (A): with 99 % confidence the share of images like the calibration images that make it fire, at most;
            tries counted.
        worst_direction_bound: (B): holds even for a direction that was chosen; 1 says nothing.
        hits: Calibration images that make it fire.
        hits_bound: (D): the share that so many hits allow, with 95 % confidence.
        margins: The trigger's response as a multiple of T, by what happened to the image; it fires above 1.
        high: D, the unit's answer to its trigger.
        low: d, to the mean feature.
        output_change: Of the first output on the trigger, as a share of its range.
    """

    unit: int
    tries: int
    bound: float
    worst_direction_bound: float
    hits: int
    hits_bound: float
    margins: Mapping[str, float]
    high: float
    low: float
    output_change: float


@dataclass(frozen=True, slots=True)
class StainReport:
    """What staining did.

    Attributes:
        layer: The stained layer.
        fan_in: m, the values that a unit reads at a position.
        positions: Places of an image where it reads.
        form: ``replacement`` or ``additive``.
        threshold: T.
        largest_radius: Of the calibration features around their mean.
        silenced_change: How far the outputs move without any one of the units, stains' and decoys', at most: their
            largest change as a share of their range, the mean over calibration images. The layer is then the first with
            enough such units. None: no layer has; it is the one where a trigger needs the smallest share of the radius.
        calibration: Where the calibration images come from.
        images: How many they are.
        stains: One each.
        decoys: How many detectors were made to compare with.
    """

    layer: str
    fan_in: int
    positions: int
    form: str
    threshold: float
    largest_radius: float
    silenced_change: float | None
    calibration: str
    images: int
    stains: tuple[StainFacts, ...]
    decoys: int

    def to_json(self) -> dict[str, Any]:
        """JSON-ready form."""
        stains = [
            {name: getattr(facts, name) for name in facts.__slots__} | {"margins": dict(facts.margins)}
            for facts in self.stains
        ]
        return {**{name: getattr(self, name) for name in self.__slots__}, "stains": stains}


@dataclass(frozen=True, slots=True)
class Stained:
    """A stained network.

    Attributes:
        model: A copy of the network in which a few rows of weights differ.
        secret: What proves the stains. Keep it in a vault, and commit to it before the network leaves the house.
        report: What was done and what it guarantees.
    """

    model: nn.Module
    secret: StainSecret
    report: StainReport
