"""Layers in which a trigger can reach its margin, the best first."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from keylatch.errors import LockError
from keylatch.locks._detector._bounds import needed_cosine
from keylatch.locks._detector._sites import DetectorSite

# A trigger has to reach half as much again as T, which the features of a narrow layer cannot.
LARGEST_COSINE = 0.55


def useful_sites(
    sites: Sequence[DetectorSite], names: Sequence[str] | None, rate: float, tries: int
) -> list[DetectorSite]:
    """The named layers that are wide enough, first those in which a trigger needs the smallest share of the radius.

    Args:
        sites: Of `find_detector_sites`.
        names: Layers to choose from; None for all.
        rate: The bound that T will be fixed from.
        tries: Directions that may be tried.

    Returns:
        At least one.

    Raises:
        LockError: A name is unknown, or no layer is wide enough for a useful bound.
    """
    named = list(sites) if names is None else [_named(sites, name) for name in names]
    wanted = {site: needed_cosine(site.fan_in, site.positions, rate, tries) for site in sites}
    wide = sorted((site for site in named if wanted[site] <= LARGEST_COSINE), key=wanted.__getitem__)
    if not wide:
        raise _too_narrow(named, [site for site in sites if wanted[site] <= LARGEST_COSINE], rate)
    return [site for _, equal in groupby(wide, wanted.__getitem__) for site in _middle_first(list(equal))]


def _middle_first(sites: Sequence[DetectorSite]) -> list[DetectorSite]:
    """The last block of a transformer late: behind it the output may listen to one token only."""
    middle = len(sites) // 2
    return [sites[place] for place in sorted(range(len(sites)), key=lambda place: abs(place - middle))]


def _named(sites: Sequence[DetectorSite], name: str) -> DetectorSite:
    for site in sites:
        if name in (site.name, site.weight):
            return site
    raise LockError(f"{name!r} is not a layer that can hold a detector", hint=_would_do(sites))


def _too_narrow(named: Sequence[DetectorSite], wide: Sequence[DetectorSite], rate: float) -> LockError:
    if not named:
        found = "no layer can hold a detector: none is an ungrouped convolution or linear layer with an activation"
        return LockError(found, hint="take a network with ReLU, GELU, SiLU or hard-swish behind its layers")
    widest = max(named, key=lambda site: site.fan_in)
    found = f"{widest.name} reads {widest.fan_in} values at a position, too few to bound false positives by {rate:.0e}"
    return LockError(found, hint=_would_do(wide))


def _would_do(wide: Sequence[DetectorSite]) -> str:
    widest = sorted(wide, key=lambda site: -site.fan_in)[:4]
    if not widest:
        return "no layer of this network would do; take a wider network, or a larger rate="
    return "layers that would do are, e.g., " + ", ".join(f"{site.name} ({site.fan_in})" for site in widest)
