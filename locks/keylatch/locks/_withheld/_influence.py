"""What a network's outputs lose with each row of its weights, to first order and without labels.

A row w is replaced by random weights r of the tensor's mean m and variance s^2. To first order the outputs y of an
image change by J (r - w), and on average over r

    E |J (r - w)|^2 = |J (m - w)|^2 + s^2 |J|^2        (Frobenius norm)

With signs v drawn uniformly for each image and output and g = d(v . y)/dw, E_v (g . d)^2 = |J d|^2 for every d, summed
over images (Hutchinson, Commun. Stat. 18 (1989)): a few backward passes give the score of all rows. Replacements of
different rows are independent, so scores add up, and the most damage for each byte is a matter of sorting.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import fx

from keylatch.locks._randomness import SeededDraws

PROBES = 8  # backward passes; the order of rows hardly moves with more
IMAGES = 8


def row_influences(
    body: fx.GraphModule, names: Mapping[str, tuple[int, ...]], images: torch.Tensor, draws: SeededDraws
) -> dict[str, torch.Tensor]:
    """Expected squared change of the outputs, as a share of their variance, for each withheld weight of each row.

    Args:
        body: The network, `(image) -> tuple of tensors`.
        names: Parameters to look at, and their shapes, (rows, ...).
        images: (N, *shape) as the network takes them.
        draws: For the probes.

    Returns:
        By parameter name (rows,) float64.
    """
    weights = {name: body.get_parameter(name) for name in names}
    totals = {name: torch.zeros(shape[0], dtype=torch.float64) for name, shape in names.items()}
    with torch.enable_grad():
        for _ in range(PROBES):
            gradients = torch.autograd.grad(_probe(body(images), draws), list(weights.values()), allow_unused=True)
            for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
                if gradient is not None:
                    totals[name] += _row_scores(weight.detach(), gradient).cpu()
    return {name: total / PROBES / max(1, torch.Size(names[name][1:]).numel()) for name, total in totals.items()}


def _probe(outputs: tuple[torch.Tensor, ...], draws: SeededDraws) -> torch.Tensor:
    """A sum of all outputs with random signs, each output in units of its spread."""
    total = torch.zeros((), device=outputs[0].device)
    for output in outputs:
        if output.is_floating_point() and output.requires_grad:
            spread = output.detach().std().clamp(min=1e-12)
            total = total + (output * draws.signs(*output.shape).to(output)).sum() / spread
    return total


def _row_scores(weight: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    spread, mean = torch.std_mean(weight.double(), correction=0)
    rows, moved = gradient.double().flatten(1), (mean - weight.double()).flatten(1)
    return (rows * moved).sum(1).square() + spread.square() * rows.square().sum(1)
