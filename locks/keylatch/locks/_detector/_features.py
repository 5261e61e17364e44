"""What enters a layer that holds a detector: features, their center, their spread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import fx
from torch.nn import functional as F

from keylatch.locks._detector._sites import DetectorSite
from keylatch.locks._gate_sites import input_of

BATCH = 8  # unfolded features of a wide convolution take megabytes an image


def graph_until(module: fx.GraphModule, node: fx.Node) -> fx.GraphModule:
    """The part of a graph that computes one node, with the same tensors."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for original in module.graph.nodes:
        copies[original] = graph.node_copy(original, lambda argument: copies[argument])
        if original is node:
            break
    graph.output(copies[node])
    graph.eliminate_dead_code()
    return fx.GraphModule(module, graph)


def features_in(site: DetectorSite, value: torch.Tensor) -> torch.Tensor:
    """The values that a unit of the layer reads, at each position.

    Args:
        site: The layer.
        value: Its input, (N, C, H, W) or (N, ..., m).

    Returns:
        (N, positions, m), in the order of a weight row that is flattened.
    """
    if site.window is None:
        return value.reshape(len(value), -1, site.fan_in)
    window = site.window
    patches: torch.Tensor = F.unfold(value, window.kernel, window.dilation, window.padding, window.stride)
    return patches.transpose(1, 2)


def batches_of(images: torch.Tensor) -> Iterator[torch.Tensor]:
    """Images a few at a time."""
    for start in range(0, len(images), BATCH):
        yield images[start : start + BATCH]


class FeatureReader:
    """Images to features, with gradients.

    Args:
        module: The captured network.
        site: The layer.
    """

    def __init__(self, module: fx.GraphModule, site: DetectorSite) -> None:
        self.site = site
        self._prefix: Callable[[torch.Tensor], torch.Tensor] = graph_until(module, input_of(site.node))

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Features of images as the network takes them: (N, positions, m)."""
        return features_in(self.site, self._prefix(images))


@dataclass(frozen=True, slots=True, eq=False)
class FeatureSpread:
    """Features of calibration images.

    Attributes:
        center: c, (m,), their mean over images and positions.
        radii: (N, positions), |phi(x) - c|.
        centered: (N, m), phi(x) - c at one position of each image, another one each time.
    """

    center: torch.Tensor
    radii: torch.Tensor
    centered: torch.Tensor

    @property
    def largest_radius(self) -> float:
        """Of all calibration images at all positions."""
        return float(self.radii.max())

    def variance_of(self, row: torch.Tensor) -> float:
        """Of `row . phi(x)` over images, estimated at one position of each."""
        answers = self.centered.double() @ row.to(self.centered.device).double()
        return float(answers.square().mean())


def measure_spread(reader: FeatureReader, images: torch.Tensor) -> FeatureSpread:
    """Read the features of calibration images, twice: for the center, then around it.

    Args:
        reader: Of the layer.
        images: (N, ...), as the network takes them.
    """
    with torch.no_grad():
        sums = [reader(part).mean(1).sum(0).double() for part in batches_of(images)]
        center = torch.stack(sums).sum(0) / len(images)
        radii, centered = [], []
        for part in batches_of(images):
            features = reader(part) - center.to(torch.float32)
            radii.append(features.norm(dim=2))
            place = torch.arange(len(part)) + sum(len(rows) for rows in radii[:-1])
            centered.append(features[torch.arange(len(part)), place * 7919 % features.shape[1]])
    return FeatureSpread(center.float(), torch.cat(radii), torch.cat(centered))


def responses(features: torch.Tensor, center: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """`v . (phi - c)` of several detectors.

    Args:
        features: (N, positions, m).
        center: (m,).
        directions: (K, m), unit vectors.

    Returns:
        (N, K), the largest over positions.
    """
    return ((features - center) @ directions.T).amax(1)
