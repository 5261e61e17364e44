"""Stains: detector neurons written into a network, which prove later whose it is. Changes a few rows of weights.

Source: "Staining and locking computer vision models without retraining" (arXiv 2507.22000).
"""

from __future__ import annotations

import copy
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import fx, nn

from keylatch.errors import LockError
from keylatch.locks._capture import capture
from keylatch.locks._detector._bounds import (
    expected_rate,
    hit_rate_bound,
    quoted_rate,
    threshold_for,
    worst_direction_rate,
)
from keylatch.locks._detector._draw import MAX_TRIES, Detector, draw_detectors
from keylatch.locks._detector._features import FeatureReader, FeatureSpread, batches_of, measure_spread, responses
from keylatch.locks._detector._placing import Placement, placements
from keylatch.locks._detector._rows import Form, write_row
from keylatch.locks._detector._sites import DetectorSite, find_detector_sites, heard_sites
from keylatch.locks._detector._useful_sites import useful_sites
from keylatch.locks._input_spec import InputSpec
from keylatch.locks._lock_proof import device_of, images_for
from keylatch.locks._randomness import SEED_BYTES, SeededDraws
from keylatch.locks._sample_images import sample_images
from keylatch.locks._stain_making import MadeStain, StainMaker, answer_scale
from keylatch.locks._stain_report import Stained, StainFacts, StainReport
from keylatch.locks._stain_secret import NONCE_BYTES, StainSecret

FALSE_POSITIVE_RATE = 1e-6
SAMPLE_IMAGES = 64


@dataclass(frozen=True, slots=True, eq=False)
class _Drawn:
    """Detectors, and where they go."""

    placement: Placement
    reader: FeatureReader
    spread: FeatureSpread
    threshold: float
    detectors: list[Detector]


def stain(
    model: nn.Module,
    spec: InputSpec,
    *,
    count: int = 1,
    decoys: int = 0,
    layers: Sequence[str] | None = None,
    form: Form = "replacement",
    calibration: torch.Tensor | None = None,
    rate: float = FALSE_POSITIVE_RATE,
    seed: bytes | None = None,
) -> Stained:
    """Write stains into a network: units that fire on secret images, and on others with a chance that is computed.

    Args:
        model: A module in evaluation mode whose forward takes one image batch. It is copied, not changed.
        spec: Size and value range of its images; a float input.
        count: How many stains, each in a unit of its own.
        decoys: How many more are made and left out. With them stains can be verified from predictions alone: four
            stains among sixteen decoys give a p-value of 2e-4.
        layers: Names of layers to choose from; default: all that the first output follows from. Of those with enough
            units that the outputs do not miss the one where a trigger needs least is taken; of all if none has.
        form: ``replacement`` takes units that the network misses least; ``additive`` lets them keep their job, at the
            price of a little noise.
        calibration: Unlabeled images as the model takes them, (N, *spec.shape), a hundred or more; default: made
            ones, for which alone the bound then speaks.
        rate: Share of images that may make a stain fire, with 99 % confidence: the bound (A) that T is fixed from.
        seed: 32 bytes to draw the secret from; default fresh. Whoever has it has the secret.

    Returns:
        The stained network, its secret and a report.

    Raises:
        LockError: If the network cannot be stained as asked; the message names the reason, the hint the remedy.
    """
    _check(model, spec, count, decoys, form, rate)
    graph, _ = capture(model, spec)
    graph.requires_grad_(False)
    sites = find_detector_sites(graph)
    useful = useful_sites(sites if layers is not None else heard_sites(graph, sites), layers, rate, MAX_TRIES)
    images = _calibration_images(spec, calibration).to(device_of(graph))
    seed = secrets.token_bytes(SEED_BYTES) if seed is None else seed
    draws, unit_draws = SeededDraws(seed, "stain"), SeededDraws(seed, "stain units")
    places = placements(graph, _large_enough(useful, count + decoys), images, count + decoys, unit_draws)
    drawn = _draw(graph, places, images, spec, rate, count + decoys, draws)
    site, spread, threshold = drawn.placement.site, drawn.spread, drawn.threshold
    maker = StainMaker(graph, site, spec, drawn.reader, spread, threshold, form, answer_scale(graph, site, images))
    made = [maker.make(detector, unit) for detector, unit in zip(drawn.detectors, drawn.placement.units, strict=True)]
    stained = copy.deepcopy(model)
    for one in made[:count]:
        write_row(stained, site, one.mark.unit, one.row, spread)
    marks = tuple(one.mark for one in made)
    secret = StainSecret(
        site.weight, form, spec, spread.center.cpu(), threshold, marks[:count], marks[count:],
        draws.permutation(count + decoys), draws.bytes(NONCE_BYTES),
    )  # fmt: skip
    source = "calibration images" if calibration is not None else "sample images, made without data"
    facts = _facts(maker, drawn.detectors[:count], made[:count], secret, images)
    report = StainReport(
        site.name, site.fan_in, site.positions, form, threshold, spread.largest_radius, drawn.placement.silenced_change,
        source, len(images), facts, decoys,
    )  # fmt: skip
    return Stained(stained, secret, report)


def count_hits(reader: FeatureReader, secret: StainSecret, images: torch.Tensor) -> list[int]:
    """How many images, as the network takes them, make each stain fire."""
    directions = torch.stack([mark.direction for mark in secret.stains]).to(images.device)
    center = secret.center.to(images.device)
    with torch.no_grad():
        answers = [responses(reader(part), center, directions) for part in batches_of(images)]
    return [int(count) for count in (torch.cat(answers) > secret.threshold).sum(0)]


def _check(model: object, spec: InputSpec, count: int, decoys: int, form: str, rate: float) -> None:
    if not isinstance(model, nn.Module):
        hint = "give the torch.nn.Module that the program was exported from"
        raise LockError(f"staining needs a module, got {type(model).__name__}", hint=hint)
    if spec.dtype != "float32":
        hint = "stain the network without the preprocessing in front of it"
        raise LockError(f"staining needs a float input, got {spec.dtype}: pixels have no gradient there", hint=hint)
    if count < 1 or decoys < 0:
        raise LockError(f"{count} stains and {decoys} decoys are asked for", hint="ask for at least one stain")
    if form not in ("replacement", "additive"):
        raise LockError(f"form {form!r} is neither replacement nor additive", hint="leave form= to its default")
    if not 0 < rate < 1:  # false for nan
        raise LockError(f"a false-positive rate of {rate} is not between 0 and 1", hint="give e.g. 1e-6")


def _calibration_images(spec: InputSpec, calibration: torch.Tensor | None) -> torch.Tensor:
    if calibration is not None:
        return images_for(spec, calibration)
    return spec.from_pixels(sample_images(SAMPLE_IMAGES, spec.channels, spec.height, spec.width))


def _large_enough(sites: Sequence[DetectorSite], count: int) -> list[DetectorSite]:
    enough = [site for site in sites if site.units >= count]
    if not enough:
        found = f"{sites[0].name} has {sites[0].units} units, too few for {count} stains and decoys"
        raise LockError(found, hint="ask for fewer, or take a wider layer with layers=[...]")
    return enough


def _draw(
    graph: fx.GraphModule,
    places: Iterable[Placement],
    images: torch.Tensor,
    spec: InputSpec,
    rate: float,
    count: int,
    draws: SeededDraws,
) -> _Drawn:
    """Detectors in the first place where triggers reach their margin."""
    failures = []
    for placement in places:
        reader = FeatureReader(graph, placement.site)
        spread = measure_spread(reader, images)
        threshold = threshold_for(spread.radii, placement.site.fan_in, rate, MAX_TRIES)
        try:
            detectors = draw_detectors(reader, spread, threshold, spec, draws, count)
        except LockError as error:
            failures.append(error)
        else:
            return _Drawn(placement, reader, spread, threshold, detectors)
    raise failures[-1]


def _facts(
    maker: StainMaker,
    detectors: Sequence[Detector],
    made: Sequence[MadeStain],
    secret: StainSecret,
    images: torch.Tensor,
) -> tuple[StainFacts, ...]:
    site, spread, threshold = maker.site, maker.spread, maker.threshold
    expected = expected_rate(spread.radii, threshold, site.fan_in)
    worst = worst_direction_rate(spread.centered, threshold, spread.largest_radius)
    hits = count_hits(maker.reader, secret, images)
    return tuple(
        StainFacts(
            one.mark.unit, detector.tries, quoted_rate(expected, detector.tries), min(1.0, worst * site.positions),
            hit, hit_rate_bound(hit, len(images)), dict(detector.trigger.margins), one.mark.high, one.mark.low,
            one.output_change,
        )
        for detector, one, hit in zip(detectors, made, hits, strict=True)
    )  # fmt: skip
