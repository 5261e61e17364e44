"""Where detectors go: a layer, and units in it that the network does not miss."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import fx

from keylatch.locks._detector._silencing import quiet_units
from keylatch.locks._detector._sites import DetectorSite
from keylatch.locks._detector._units import POOL, rank_units
from keylatch.locks._randomness import SeededDraws

RANKING_IMAGES = 64
_FALLBACK_IMAGES, _TRIED_IMAGES = 32, 16
SILENCING_IMAGES = 200
_LAYERS = 2  # more are not looked at
_LEAST = 4  # where no unit is quiet, this part of the candidates is taken
_CANDIDATES = 3  # units that are silenced for each that is wanted, or `POOL` of all if that is more


@dataclass(frozen=True, slots=True)
class Placement:
    """Units of one layer.

    Attributes:
        site: The layer.
        units: Different ones, in random order: a decoy is as likely to have the better one as a stain.
        silenced_change: How far outputs move without any one of them, at most (`quiet_units`); None if farther than
            `QUIET`.
    """

    site: DetectorSite
    units: tuple[int, ...]
    silenced_change: float | None


def placements(
    module: fx.GraphModule, sites: Sequence[DetectorSite], images: torch.Tensor, count: int, draws: SeededDraws
) -> Iterator[Placement]:
    """Layers that have enough units which the outputs do not miss, the best first; else the first layer as it is.

    Args:
        module: The captured network.
        sites: Layers to choose from, the best first, each with so many units; at least one.
        images: (N, ...), as the network takes them: calibration images.
        count: How many units.
        draws: For projections of the outputs, and for the choice.
    """
    first_is_quiet = False
    for site in sites[:_LAYERS]:
        ranked = rank_units(module, site, images[:RANKING_IMAGES], count, draws).tolist()
        changes = quiet_units(module, site, images[:SILENCING_IMAGES], _candidates(ranked, count), count)
        if len(changes) >= count:
            units = _drawn(quieter_half(changes, count), count, draws)
            first_is_quiet |= site is sites[0]
            yield Placement(site, units, max(changes[unit] for unit in units))
    if not first_is_quiet:
        yield Placement(
            sites[0], _drawn(least_missed_units(module, sites[0], images, count, draws), count, draws), None
        )


def least_missed_units(
    module: fx.GraphModule, site: DetectorSite, images: torch.Tensor, count: int, draws: SeededDraws
) -> list[int]:
    """Where no unit is quiet: of those that matter least to first order, the ones that outputs miss least if silent.

    A few images tell them apart: how far outputs of DeiT-Tiny move on eight tells how far they do on 400 others, and
    how many classes change there (docs/results.md).
    """
    ranked: list[int] = rank_units(module, site, images[:_FALLBACK_IMAGES], count, draws, power=2).tolist()
    candidates = _candidates(ranked, count)
    changes = quiet_units(module, site, images[:_TRIED_IMAGES], candidates, limit=math.inf)
    best_first = sorted(changes, key=changes.__getitem__) if len(changes) >= count else candidates
    return best_first[: max(count, len(candidates) // _LEAST)]


def _candidates(ranked: list[int], count: int) -> list[int]:
    """Of all units in order those that are silenced."""
    return ranked[: max(_CANDIDATES * count, int(POOL * len(ranked)))]


def quieter_half(changes: Mapping[int, float], count: int) -> list[int]:
    """Of quiet units those that are missed least, so many at least: which of them a stain is in is left to chance."""
    return sorted(changes, key=changes.__getitem__)[: max(count, len(changes) // 2)]


def _drawn(units: Sequence[int], count: int, draws: SeededDraws) -> tuple[int, ...]:
    return tuple(units[place] for place in draws.permutation(len(units))[:count].tolist())
