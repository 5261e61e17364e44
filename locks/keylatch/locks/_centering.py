"""Channel means of gated inputs: from calibration images, else batch normalizations, else made images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import fx

from keylatch.locks._fold_batch_norm import CONV2D, Moments
from keylatch.locks._gate_sites import GateSite, input_of
from keylatch.locks._moments import propagate

Source = Literal["calibration images", "batch-norm statistics", "sample images"]
_CHUNK = 8  # images at once


@dataclass(frozen=True, slots=True)
class ChannelMeans:
    """(C,) float32 means of a gated input, and where they come from."""

    values: torch.Tensor
    source: Source


def channel_means(
    module: fx.GraphModule,
    sites: Sequence[GateSite],
    known: Mapping[fx.Node, Moments],
    images: torch.Tensor,
    *,
    calibrated: bool,
) -> list[ChannelMeans]:
    """Channel means of every gated input, after explicit padding.

    Args:
        module: The graph, before gates are put in.
        sites: The layers to be gated.
        known: Moments of folded batch normalizations.
        images: (N, *spec.shape) inputs to measure on: the caller's own if `calibrated`, else made ones.
        calibrated: Whether `images` are the caller's; then they are preferred to batch-norm statistics.
    """
    derived = {} if calibrated else {site: _from_moments(site, known) for site in sites}
    wanted = [site for site in sites if derived.get(site) is None]
    measured = dict(zip(wanted, _measure(module, wanted, images), strict=True))
    source: Source = "calibration images" if calibrated else "sample images"
    means = []
    for site in sites:
        values = derived.get(site)
        found = (
            ChannelMeans(measured[site], source) if values is None else ChannelMeans(values, "batch-norm statistics")
        )
        means.append(found)
    return means


def _from_moments(site: GateSite, known: Mapping[fx.Node, Moments]) -> torch.Tensor | None:
    if site.source.target is torch.ops.aten.constant_pad_nd.default:
        moments = propagate(input_of(site.source), known)
        return None if moments is None else moments.mean * _inner_share(site.source)
    if site.node.target is not CONV2D and site.source.meta["val"].dim() != 2:
        return None  # tokens: channels are not in dimension 1
    moments = propagate(site.source, known)
    return None if moments is None else moments.mean


def _inner_share(padding: fx.Node) -> float:
    """Share of a padded image that is not padding, which is zero."""
    height, width = (int(size) for size in input_of(padding).meta["val"].shape[2:])
    left, right, top, bottom = (int(str(size)) for size in padding.args[1])  # type: ignore[union-attr]
    return height * width / float((height + top + bottom) * (width + left + right))


class _Observer(fx.Interpreter):
    """Runs a graph and adds up the channel means of chosen nodes' inputs."""

    def __init__(self, module: fx.GraphModule, sites: Sequence[GateSite]) -> None:
        super().__init__(module)
        self.sums = {site.node: torch.zeros(site.channels, dtype=torch.float64) for site in sites}

    def run_node(self, n: fx.Node) -> Any:
        # At once, before a later operator changes the input in place.
        if n in self.sums:
            inputs = self.fetch_args_kwargs_from_env(n)[0][0].detach().double()
            axis = 1 if n.target is CONV2D else inputs.dim() - 1
            others = [dimension for dimension in range(1, inputs.dim()) if dimension != axis]
            per_image = inputs.mean(others) if others else inputs
            self.sums[n] += per_image.sum(0).cpu()
        return super().run_node(n)


def _measure(module: fx.GraphModule, sites: Sequence[GateSite], images: torch.Tensor) -> list[torch.Tensor]:
    if not sites:
        return []
    observer = _Observer(module, sites)
    with torch.no_grad():
        for chunk in torch.split(images, _CHUNK):
            observer.run(chunk)
    return [(observer.sums[site.node] / len(images)).float() for site in sites]
