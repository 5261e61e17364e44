"""Units of a layer in the order in which a network can do without them, to first order."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from keylatch.locks._detector._features import batches_of
from keylatch.locks._detector._sites import DetectorSite
from keylatch.locks._randomness import SeededDraws

PROJECTIONS = 4
POOL = 0.02  # the share of the units that matter least, among which the most audible are taken


def rank_units(
    module: fx.GraphModule, site: DetectorSite, images: torch.Tensor, count: int, draws: SeededDraws, *, power: int = 1
) -> torch.Tensor:
    """All units, first those that matter least, and of these first the ones the output listens to most.

    How much a unit matters is the first-order change of the outputs if it were silent, E|sum_p a dL/da|^power, over
    random projections L of the outputs (the Taylor criterion of Molchanov et al., arXiv 1611.06440). How audible it is
    E|sum_p dL/da|^power: a detector in a unit with no weight behind it would change no prediction. Squares ask most of
    the few images on which a unit is loud; the classes that change when it is silenced do not.

    Args:
        module: The captured network.
        site: The layer.
        images: (N, ...), as the network takes them.
        count: How many are wanted: those that matter least are so many, or `POOL` of all if that is more.
        draws: For the projections.
        power: 1, or 2 as in the source.

    Returns:
        (units,) int64.
    """
    missed = torch.zeros(site.units, dtype=torch.float64)
    heard = torch.zeros(site.units, dtype=torch.float64)
    for part in batches_of(images):
        for activation, gradient in _gradients(module, site, part, draws):
            missed += _per_unit(activation * gradient, site, power)
            heard += _per_unit(gradient, site, power)
    least, others = missed.argsort(stable=True).tensor_split([max(count, int(POOL * site.units))])
    return torch.cat([least[heard[least].argsort(descending=True, stable=True)], others])


def _per_unit(values: torch.Tensor, site: DetectorSite, power: int) -> torch.Tensor:
    by_image = values.movedim(site.unit_axis, -1).flatten(1, -2) if values.dim() > 2 else values.unsqueeze(1)
    return by_image.sum(1).abs().pow(power).sum(0).double().cpu()


def _gradients(
    module: fx.GraphModule, site: DetectorSite, images: torch.Tensor, draws: SeededDraws
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The activation, and the gradient of each projection of the outputs with regard to it."""
    run = _Watching(module, site.activation)
    outputs = [value.flatten(1) for value in run.run(images) if value.is_floating_point()]
    flat = torch.cat(outputs, dim=1)
    signs = draws.signs(flat.shape[1], PROJECTIONS).to(flat)
    totals = (flat @ signs).sum(0)
    pairs = []
    for index, total in enumerate(totals):
        (gradient,) = torch.autograd.grad(total, run.leaf, retain_graph=index + 1 < len(totals))
        pairs.append((run.leaf.detach(), gradient))
    return pairs


class _Watching(fx.Interpreter):
    """Runs a graph and makes one node's value a leaf of the gradient."""

    def __init__(self, module: fx.GraphModule, node: fx.Node) -> None:
        super().__init__(module)
        self._node = node
        self.leaf = torch.empty(0)

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n is not self._node:
            return value
        self.leaf = value.detach().requires_grad_()
        return self.leaf.clone()  # a later layer may write into it
