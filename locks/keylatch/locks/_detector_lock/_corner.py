"""What a detector reads of a layer's input: all values at the positions that the patch reaches.

Not their mean, as squeeze-and-excite gates take it: what a patch does to one position it undoes at the next, and over
a whole map it does next to nothing. In an early layer the patch decides every one of these values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx

from keylatch.locks._detector._features import FeatureReader
from keylatch.locks._detector._sites import DetectorSite
from keylatch.locks._detector._trigger import pixels_to_input
from keylatch.locks._detector_lock._paste_gate import PasteGate
from keylatch.locks._fold_batch_norm import CONV2D
from keylatch.locks._randomness import SeededDraws

_PATCHES = 4  # random ones, to see where they arrive
_SHARE = 0.25  # of the largest squared change; positions that only touch the patch change less


@dataclass(frozen=True, slots=True, eq=False)
class Corner:
    """Where a patch arrives in a layer's input.

    Attributes:
        site: The layer; `fan_in` are its input channels.
        places: Positions, int64, in the order of the input's memory.
    """

    site: DetectorSite
    places: torch.Tensor

    @property
    def values(self) -> int:
        """m, all channels at these positions."""
        return self.site.fan_in * len(self.places)


class CornerReader(FeatureReader):
    """Images to the values in a corner, with gradients: (N, 1, m).

    Args:
        module: The captured network.
        corner: What to read.
    """

    def __init__(self, module: fx.GraphModule, corner: Corner) -> None:
        super().__init__(module, replace(corner.site, fan_in=corner.values, positions=1))
        self.places = corner.places

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Values for images as the network takes them."""
        value = by_position(self.site, self._prefix(images))
        return value.index_select(position_axis(self.site), self.places.to(value.device)).flatten(1).unsqueeze(1)


def position_axis(site: DetectorSite) -> int:
    """The dimension of `by_position` that counts positions."""
    return 2 if site.node.target is CONV2D else 1


def by_position(site: DetectorSite, value: torch.Tensor) -> torch.Tensor:
    """A layer's input as (N, C, positions) in front of a convolution, else (N, positions, C)."""
    if site.node.target is CONV2D:
        return value.flatten(2)
    return value.unsqueeze(1) if value.dim() == 2 else value.flatten(1, -2)


def find_corners(
    module: fx.GraphModule, sites: Sequence[DetectorSite], gate: PasteGate, images: torch.Tensor, draws: SeededDraws
) -> list[Corner]:
    """Find out where a patch arrives: the positions that random patches change at least half as far as any.

    Measured, because the order of a transformer's tokens is its own affair.

    Args:
        module: The captured network.
        sites: Its layers.
        gate: Pastes patches.
        images: A few, as the network takes them.
        draws: For the patches.

    Returns:
        One for each layer that a patch arrives at, in order.
    """
    size, shown = gate.place.size, images[:_PATCHES]
    pixels = draws.uniform(len(shown), gate.spec.channels, size, size).float().to(images.device)
    changes = _Changes(module, sites)
    with torch.no_grad():
        changes.run(torch.cat([shown, gate.pasted(shown, pixels_to_input(pixels, gate.spec))]))
    moved = [(site, changes.moved[site]) for site in sites]
    return [
        Corner(site, (change >= _SHARE * change.max()).nonzero().flatten())
        for site, change in moved
        if float(change.max()) > 0
    ]


class _Changes(fx.Interpreter):
    """Runs a graph on images and the same with patches; keeps how much each position of a layer's input changes."""

    def __init__(self, module: fx.GraphModule, sites: Sequence[DetectorSite]) -> None:
        super().__init__(module)
        self._sites = {site.node: site for site in sites}
        self.moved: dict[DetectorSite, torch.Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        if n in self._sites:  # at once, before a later operator changes the input in place
            site = self._sites[n]
            plain, patched = by_position(site, self.fetch_args_kwargs_from_env(n)[0][0]).chunk(2)
            other = 1 if position_axis(site) == 2 else 2
            self.moved[site] = (patched - plain).square().sum(other).mean(0)
        return super().run_node(n)
