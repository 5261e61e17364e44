"""What a detector reads of a layer's input: only the positions that the patch reaches.

The mean over a whole map, as squeeze-and-excite gates take it, is out of a small patch's reach: in MobileNetV2 sixty
steps bring a patch of 32 x 32 pixels to a seventh of what its detector would need.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import fx

from keylatch.locks._detector._features import FeatureReader, features_in
from keylatch.locks._detector._sites import DetectorSite
from keylatch.locks._detector._trigger import pixels_to_input
from keylatch.locks._detector_lock._paste_gate import PasteGate
from keylatch.locks._fold_batch_norm import CONV2D
from keylatch.locks._randomness import SeededDraws

_PATCHES = 4  # random ones, to see where they arrive
_SHARE = 0.8  # of the largest change


class CornerReader(FeatureReader):
    """Images to the features of some positions, with gradients: (N, positions, m); squeezed to their mean, (N, 1, m).

    Args:
        module: The captured network.
        site: The layer.
        places: Which positions, int64.
        squeezed: Whether their mean is read.
    """

    def __init__(self, module: fx.GraphModule, site: DetectorSite, places: torch.Tensor, *, squeezed: bool) -> None:
        super().__init__(module, replace(site, positions=1 if squeezed else len(places)))
        self.places, self.squeezed = places, squeezed

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Features of images as the network takes them."""
        features = _everywhere(self.site, self._prefix(images), squeezed=self.squeezed)
        read = features.index_select(1, self.places.to(features.device))
        return read.mean(1, keepdim=True) if self.squeezed else read


class _WholeReader(FeatureReader):
    """Images to features at all positions, window by window or channel vector by channel vector."""

    def __init__(self, module: fx.GraphModule, site: DetectorSite, *, squeezed: bool) -> None:
        super().__init__(module, site)
        self._squeezed = squeezed

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return _everywhere(self.site, self._prefix(images), squeezed=self._squeezed)


def read_corner(
    module: fx.GraphModule, site: DetectorSite, gate: PasteGate, images: torch.Tensor, draws: SeededDraws, *,
    squeezed: bool,
) -> CornerReader:  # fmt: skip
    """Find out where a patch arrives: the positions that random patches change nearly as much as any.

    Measured, because the order of a transformer's tokens is its own affair.

    Args:
        module: The captured network.
        site: The layer.
        gate: Pastes patches.
        images: A few, as the network takes them.
        draws: For the patches.
        squeezed: Whether the mean of the positions is to be read.
    """
    reader, size, shown = _WholeReader(module, site, squeezed=squeezed), gate.place.size, images[:_PATCHES]
    pixels = draws.uniform(len(shown), gate.spec.channels, size, size).float().to(images.device)
    with torch.no_grad():
        change = reader(gate.pasted(shown, pixels_to_input(pixels, gate.spec))) - reader(shown)
    moved = change.square().sum(2).mean(0)
    places = (moved >= _SHARE * moved.max()).nonzero().flatten()
    return CornerReader(module, site, places, squeezed=squeezed)


def _everywhere(site: DetectorSite, value: torch.Tensor, *, squeezed: bool) -> torch.Tensor:
    """(N, positions, m)."""
    if squeezed and site.node.target is CONV2D:
        return value.flatten(2).transpose(1, 2)
    return features_in(site, value)
