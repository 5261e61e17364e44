"""Which rows or tensors a share of the weights is spent on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch

from keylatch.locks._randomness import SeededDraws
from keylatch.locks._withheld._part import Part

Order = Literal["influence", "first", "random"]
Granularity = Literal["rows", "tensors"]


def units_of(shapes: Mapping[str, tuple[int, ...]], granularity: Granularity) -> list[tuple[str, int, int]]:
    """What can be withheld, in the network's order: parameter, row (-1 for all of them), weights."""
    if granularity == "tensors":
        return [(name, -1, torch.Size(shape).numel()) for name, shape in shapes.items()]
    return [(name, row, torch.Size(shape[1:]).numel()) for name, shape in shapes.items() for row in range(shape[0])]


def order_of(
    units: Sequence[tuple[str, int, int]],
    by: Order,
    draws: SeededDraws,
    influences: Mapping[str, torch.Tensor],
) -> list[int]:
    """The units in the order in which they are taken.

    Args:
        units: As `units_of` gives them.
        by: ``influence``, the most damage for each weight first; ``first``, in order; ``random``.
        draws: For ``random``.
        influences: By parameter name (rows,), for ``influence``.
    """
    if by == "first":
        return list(range(len(units)))
    if by == "random":
        return draws.uniform(len(units)).argsort().tolist()  # type: ignore[no-any-return]
    scores = torch.tensor(
        [float(influences[name].mean() if row < 0 else influences[name][row]) for name, row, _ in units]
    )
    return scores.argsort(descending=True, stable=True).tolist()  # type: ignore[no-any-return]


def parts_within(
    shapes: Mapping[str, tuple[int, ...]],
    units: Sequence[tuple[str, int, int]],
    order: Sequence[int],
    budget: int,
    *,
    skip: bool = True,
) -> tuple[Part, ...]:
    """Take units in order as long as they fit into a budget of weights; at least one.

    Args:
        shapes: Of the parameters, by name.
        units: As `units_of` gives them.
        order: Places in `units`.
        budget: Weights.
        skip: Pass over what does not fit, and go on; otherwise stop there.

    Returns:
        One part for each parameter that anything is taken of, in the order of the parameters.
    """
    masks = {name: torch.zeros(shape, dtype=torch.bool) for name, shape in shapes.items()}
    left = budget
    for place in order:
        name, row, weights = units[place]
        if weights <= left or left == budget:
            masks[name][slice(None) if row < 0 else row] = True
            left -= weights
        elif not skip:
            break
    return tuple(Part.of_mask(name, mask) for name, mask in masks.items() if bool(mask.any()))
