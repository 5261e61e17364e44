"""Detectors drawn at random: a direction, the threshold that the bound asks for, and a trigger that reaches it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from keylatch.errors import LockError
from keylatch.locks._detector._features import FeatureReader, FeatureSpread
from keylatch.locks._detector._trigger import MARGIN, STEPS, Trigger, find_triggers, pixels_to_input
from keylatch.locks._input_spec import InputSpec
from keylatch.locks._randomness import SeededDraws

MAX_TRIES = 4  # the threshold pays for all of them
_TOGETHER = 8  # images that climb at once


@dataclass(frozen=True, slots=True, eq=False)
class Detector:
    """A direction with its trigger.

    Attributes:
        direction: v, (m,) float32, of length 1.
        trigger: The image.
        tries: Directions that were drawn until one had a trigger; the bound is multiplied by it.
    """

    direction: torch.Tensor
    trigger: Trigger
    tries: int


def draw_direction(draws: SeededDraws, dimensions: int) -> torch.Tensor:
    """A direction uniform on the sphere, (m,) float32: normal entries have no preferred one."""
    entries = draws.normal(dimensions)
    direction: torch.Tensor = entries / entries.norm()
    return direction.float()


def draw_detectors(
    reader: FeatureReader,
    spread: FeatureSpread,
    threshold: float,
    spec: InputSpec,
    draws: SeededDraws,
    count: int,
    *,
    steps: int = STEPS,
    mask: torch.Tensor | None = None,
) -> list[Detector]:
    """Draw directions and climb to their triggers; a direction without one is drawn again.

    Args:
        reader: Of the layer.
        spread: Of its features.
        threshold: T, fixed before any direction is drawn.
        spec: Of the images.
        draws: For directions, starts and disturbances.
        count: How many.
        steps: Of each ascent, at most.
        mask: (H, W), 1 where pixels may change; default everywhere.

    Raises:
        LockError: After `MAX_TRIES` directions one has no trigger that reaches its margin.
    """
    found: list[Detector] = []
    for first in range(0, count, _TOGETHER):
        found += _draw_some(reader, spread, threshold, spec, draws, min(_TOGETHER, count - first), steps, mask)
    return found


def _draw_some(
    reader: FeatureReader, spread: FeatureSpread, threshold: float, spec: InputSpec, draws: SeededDraws, count: int,
    steps: int, mask: torch.Tensor | None,
) -> list[Detector]:  # fmt: skip
    found: dict[int, Detector] = {}
    reached = 0.0
    for tries in range(1, MAX_TRIES + 1):
        open_places = [place for place in range(count) if place not in found]
        directions = torch.stack([draw_direction(draws, reader.site.fan_in) for _ in open_places])
        start = 0.4 + 0.2 * draws.uniform(len(open_places), spec.channels, spec.height, spec.width).float()
        place_of = directions.to(spread.center.device)

        def respond(pixels: torch.Tensor, directions: torch.Tensor = place_of) -> torch.Tensor:
            features = reader(pixels_to_input(pixels, spec)) - spread.center
            return torch.einsum("bpm,bm->bp", features, directions)

        triggers = find_triggers(respond, start.to(spread.center.device), threshold, draws, mask=mask, steps=steps)
        for place, direction, trigger in zip(open_places, directions, triggers, strict=True):
            reached = max(reached, trigger.margin)
            if trigger.margin >= MARGIN:
                found[place] = Detector(direction, trigger, tries)
        if len(found) == count:
            return [found[place] for place in range(count)]
    raise LockError(
        f"no trigger reaches its margin in {reader.site.name}: the best of {MAX_TRIES} directions "
        f"came to {reached:.2f} T, expected {MARGIN} T",
        hint="take another layer with layers=[...], or allow a larger rate=",
    )
