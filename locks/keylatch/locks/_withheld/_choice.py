"""Which weights, rows or tensors a share is spent on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch

from keylatch.locks._randomness import SeededDraws
from keylatch.locks._withheld._part import Part

Order = Literal["influence", "first", "random"]
Granularity = Literal["weights", "rows", "tensors"]
Shapes = Mapping[str, tuple[int, ...]]


def choose_parts(
    shapes: Shapes,
    budget: int,
    by: Order,
    granularity: Granularity,
    draws: SeededDraws,
    influences: Mapping[str, torch.Tensor],
) -> tuple[Part, ...]:
    """Take units in an order as long as they fit into a budget; at least one.

    Args:
        shapes: Of the parameters to choose from, by name, in the network's order.
        budget: Weights.
        by: ``influence``, the most damage for each weight first; ``first``, in order; ``random``.
        granularity: What a unit is.
        draws: For ``random``.
        influences: By parameter name and of its shape, for ``influence``.

    Returns:
        One part for each parameter that anything is taken of, in the order of the parameters.
    """
    counts = {name: _units(shape, granularity) for name, shape in shapes.items()}
    sizes = {name: torch.Size(shape).numel() // counts[name] for name, shape in shapes.items()}
    taken = torch.zeros(sum(counts.values()), dtype=torch.bool)
    weights = torch.cat([torch.full((counts[name],), sizes[name]) for name in shapes])
    taken[_fitting(_order(shapes, counts, by, draws, influences), weights, budget, skip=by != "first")] = True
    parts = []
    for name, chosen in zip(shapes, torch.split(taken, list(counts.values())), strict=True):
        if bool(chosen.any()):
            mask = chosen.unsqueeze(1).expand(-1, sizes[name]).reshape(shapes[name])
            parts.append(Part.of_mask(name, mask, whole_share=1.0))
    return tuple(parts)


def _units(shape: tuple[int, ...], granularity: Granularity) -> int:
    return {"weights": torch.Size(shape).numel(), "rows": shape[0], "tensors": 1}[granularity]


def _order(
    shapes: Shapes, counts: Mapping[str, int], by: Order, draws: SeededDraws, influences: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    """The numbers of all units, counted over the parameters, in the order in which they are taken."""
    total = sum(counts.values())
    if by == "first":
        return torch.arange(total)
    if by == "random":
        return draws.uniform(total).argsort()
    scores = torch.cat([influences[name].reshape(counts[name], -1).mean(1) for name in shapes])
    return scores.argsort(descending=True, stable=True)


def _fitting(order: torch.Tensor, weights: torch.Tensor, budget: int, *, skip: bool) -> torch.Tensor:
    """The units of an order that fit; of unequal ones those that do not are passed over, or end it."""
    if int(weights.max()) == 1:
        return order[: max(1, budget)]
    chosen: list[int] = []
    left = budget
    for unit, size in zip(order.tolist(), weights[order].tolist(), strict=True):
        if size <= left or not chosen:
            chosen.append(unit)
            left -= size
        elif not skip:
            break
    return torch.tensor(chosen)
