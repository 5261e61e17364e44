"""Which layer's input a detector reads: tried by short climbs, before any direction of the lock is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import fx

from keylatch.errors import LockError
from keylatch.locks._detector._bounds import expected_rate, quoted_rate, threshold_for
from keylatch.locks._detector._draw import MAX_TRIES, draw_direction
from keylatch.locks._detector._features import measure_spread
from keylatch.locks._detector._useful_sites import LARGEST_COSINE
from keylatch.locks._detector_lock._corner import Corner, CornerReader, find_corners
from keylatch.locks._detector_lock._detection import along
from keylatch.locks._detector_lock._paste_gate import PasteGate
from keylatch.locks._detector_lock._sites import readable_sites
from keylatch.locks._detector_lock._trigger import find_patch_trigger
from keylatch.locks._gate_sites import input_of
from keylatch.locks._randomness import SeededDraws

WIDE = 500  # values that a detector should read (docs/locks.md): the more there are, the smaller a share of them is T
_TRIED = 4  # wide layers, and as many others
_STEPS = 40  # of a short climb
_IMAGES = 16
_LARGER = (1.5, 2.0, 3.0)  # patches that are tried for the message where one is too small
_REMEDY = "take a larger patch_size=, another layer=, a larger rate=, or code_lock"


@dataclass(frozen=True, slots=True, eq=False)
class Choosing:
    """What layers are tried with.

    Attributes:
        module: The captured network.
        gate: Pastes patches.
        images: Calibration images.
        rate: The bound that T will be fixed from.
        draws: For directions that are used for nothing else.
    """

    module: fx.GraphModule
    gate: PasteGate
    images: torch.Tensor
    rate: float
    draws: SeededDraws

    def corners(self) -> list[Corner]:
        """Where the patch arrives."""
        return find_corners(self.module, readable_sites(self.module), self.gate, self.images, self.draws)


@dataclass(frozen=True, slots=True)
class _Reach:
    """What a short climb comes to: the mean response as a multiple of T, and whether a lock could be made of it."""

    mean: float
    enough: bool


def choose(choosing: Choosing, name: str | None) -> CornerReader:
    """The named layer's input; or the first in which a short climb reaches its margin, wide ones first; or the best.

    The earlier a layer, the more of what arrives in its corner is the patch's alone. But what comes before it differs
    from network to network, so it is tried.

    Raises:
        LockError: The name is unknown, or nothing is wide enough to bound false positives.
    """
    corners = choosing.corners()
    if name is not None:
        return CornerReader(choosing.module, _named(corners, name, choosing.rate))
    best: CornerReader | None = None
    furthest = -torch.inf
    for corner in _worth_trying(corners, choosing.rate):
        reader = CornerReader(choosing.module, corner)
        reach = _tried(choosing, reader)
        if reach.enough:
            return reader
        if reach.mean > furthest:
            best, furthest = reader, reach.mean
    if best is None:
        raise _nothing_wide(corners, choosing.rate)
    return best


def would_do(choosing: Choosing) -> str:
    """Find a layer and a patch size that would do, smallest patches first."""
    spec, size = choosing.gate.spec, choosing.gate.place.size
    for side in (size, *(round(size * factor) for factor in _LARGER)):
        if side > min(spec.height, spec.width):
            break
        gate = PasteGate(replace(choosing.gate.place, size=side), spec).to(choosing.images.device)
        larger = replace(choosing, gate=gate)
        for corner in _worth_trying(larger.corners(), choosing.rate, most=2):
            reach = _tried(larger, CornerReader(larger.module, corner))
            if reach.enough:
                layer, margin = corner.site.name, f"{reach.mean:.2f} T in a short climb"
                return f"a patch_size of {side} with layer={layer!r} would do: {margin}"
    return _REMEDY


def _tried(choosing: Choosing, reader: CornerReader) -> _Reach:
    few, draws = choosing.images[:_IMAGES], choosing.draws
    spread = measure_spread(reader, few)
    threshold = threshold_for(spread.radii, reader.site.fan_in, choosing.rate, MAX_TRIES)
    direction = draw_direction(draws, reader.site.fan_in).to(spread.center)
    respond = along(reader, spread, direction)
    found = find_patch_trigger(respond, choosing.gate, few[::2], few[1::2], threshold, draws, steps=_STEPS)
    return _Reach(found.reach / threshold, found.is_enough(threshold))


def _worth_trying(corners: Sequence[Corner], rate: float, most: int = _TRIED) -> list[Corner]:
    """The first few wide ones, each input once; then the first few others that will do."""
    useful = _useful(corners, rate)
    distinct = list({input_of(corner.site.node): corner for corner in reversed(useful)}.values())[::-1]
    wide = [corner for corner in distinct if corner.values >= WIDE]
    return wide[:most] + [corner for corner in distinct if corner.values < WIDE][:most]


def _useful(corners: Sequence[Corner], rate: float) -> list[Corner]:
    """Those in which T need not be more of the radius than a trigger can reach."""
    alike = torch.ones(1, 1)

    def bound(values: int) -> float:
        return quoted_rate(expected_rate(alike, LARGEST_COSINE, values), MAX_TRIES)

    return [corner for corner in corners if corner.values > 1 and bound(corner.values) <= rate]


def _named(corners: Sequence[Corner], name: str, rate: float) -> Corner:
    useful = _useful(corners, rate)
    found = [corner for corner in corners if name in (corner.site.name, corner.site.weight)]
    if not found:
        raise LockError(f"{name!r} is not a layer whose input a detector can read", hint=_hint(useful))
    if found[0] not in useful:
        raise _too_narrow(found[0], useful, rate)
    return found[0]


def _nothing_wide(corners: Sequence[Corner], rate: float) -> LockError:
    if not corners:
        return LockError("the network has no layer whose input a detector can read", hint=_hint([]))
    return _too_narrow(max(corners, key=lambda corner: corner.values), [], rate)


def _too_narrow(corner: Corner, useful: Sequence[Corner], rate: float) -> LockError:
    read = f"{corner.site.name} gives a detector {corner.values} values to read where the patch arrives"
    return LockError(f"{read}, too few to bound false positives by {rate:.0e}", hint=_hint(useful))


def _hint(useful: Sequence[Corner]) -> str:
    if not useful:
        return "no layer of this network would do; take a wider network, a larger rate= or patch_size=, or code_lock"
    widest = sorted(useful, key=lambda corner: -corner.values)[:4]
    return "layers that would do are, e.g., " + ", ".join(f"{each.site.name} ({each.values})" for each in widest)
