"""Domains beside the source: the same classes, drawn in other colors, on other grounds.

Several directions are learned: an affine change of the color channels and a smooth random ground. Each is to move what
the network's last layer reads away from the source and from the other directions, while the network still sees the
class. They stand for domains that nobody has named.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from keylatch.locks._input_spec import InputSpec
from keylatch.locks._key_training_data import normalized
from keylatch.locks._mask_pruning._features import penultimate

DIRECTIONS = 4
_IMAGES = 32  # of a batch: each is seen in every direction
_GROUND_CELLS = 4  # of the random ground, along each side
_FARTHEST = 1.0  # squared distance, in the source's variances, past which a direction is far enough
_FIRST_CHANGE, _FIRST_GROUND = 0.5, 0.3


class Neighbors(nn.Module):
    """Learned changes of images.

    Args:
        spec: Size and normalization of the images.
    """

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        self._spec, channels = spec, spec.channels
        change = _FIRST_CHANGE * torch.randn(DIRECTIONS, channels, channels)
        self.colors = nn.Parameter(torch.eye(channels) + change)
        self.shift = nn.Parameter(_FIRST_CHANGE / 2 * torch.randn(DIRECTIONS, channels, 1, 1))
        self.ground = nn.Parameter(torch.full((DIRECTIONS, 1, 1, 1), _FIRST_GROUND))

    def forward(self, pixels: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
        """Images (N, C, H, W) in [0, 1], each moved in its direction (N,) int64."""
        count, channels, height, width = pixels.shape
        cells = torch.randn(count, channels, _GROUND_CELLS, _GROUND_CELLS).to(pixels.device)
        ground = functional.interpolate(cells, size=(height, width), mode="bilinear", align_corners=False)
        colored = torch.einsum("nij,njhw->nihw", self.colors[directions], pixels - 0.5)
        moved = 0.5 + colored + self.shift[directions] + self.ground[directions] * ground
        return _clipped(moved)

    def loss(self, network: nn.Module, pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Low where classes survive and features are far from the source's and from each other's."""
        with torch.no_grad():
            source, _ = penultimate(network, normalized(pixels, self._spec))
        center, variance = source.float().mean(0), source.float().var(0) + 1e-3
        pixels, labels = pixels[:_IMAGES], labels[:_IMAGES]
        everyone = torch.arange(DIRECTIONS, device=pixels.device).repeat_interleave(len(pixels))
        moved = self(pixels.repeat(DIRECTIONS, 1, 1, 1), everyone)
        features, scores = penultimate(network, normalized(moved, self._spec))
        means = torch.stack([part.float().mean(0) for part in torch.split(features, len(pixels))])
        places = torch.cat([means, center[None]])
        apart = ((places[:, None] - places[None, :]) ** 2 / variance).mean(2)
        first, second = torch.triu_indices(len(places), len(places), offset=1)
        return (
            functional.cross_entropy(scores.float(), labels.repeat(DIRECTIONS))
            - apart[first, second].clamp(max=_FARTHEST).mean()
        )

    def draw(self, count: int, device: torch.device) -> torch.Tensor:
        """Directions for some images, (N,) int64."""
        return torch.randint(DIRECTIONS, (count,)).to(device)


def _clipped(values: torch.Tensor) -> torch.Tensor:
    """In [0, 1]; the gradient passes, so that a pixel can come back from outside."""
    return values + (values.clamp(0, 1) - values).detach()
