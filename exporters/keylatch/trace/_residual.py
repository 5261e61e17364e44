"""What is left of a leaked tensor without the model's own: a word, and the noise of whatever was done to it."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from keylatch.trace._alignment import Counterpart

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_CLIP = 3.0  # medians: a few weights that moved far must not drown the others


def evidence(counterpart: Counterpart, base: Array, step: float) -> Array:
    """How each weight of a leak speaks for a step up or down.

    The difference in steps, clipped, divided by its mean square: of several tensors with steps alike, the product with
    a word is then largest against its noise. It depends on the leak and the model only, on nobody's word.

    Args:
        counterpart: The leaked tensor.
        base: The model's, float64.
        step: By which words move it.

    Returns:
        Of base's shape, float64; 0 where a weight says nothing.
    """
    moved = np.where(counterpart.kept, (counterpart.values - base) / step, 0.0)
    sizes = np.abs(moved[counterpart.kept])
    limit = _CLIP * float(np.median(sizes)) if sizes.size else 0.0
    if limit <= 0:
        return np.zeros_like(moved)
    clipped = np.clip(moved, -limit, limit)
    return clipped / float(np.mean(clipped[counterpart.kept] ** 2))


def unit(directions: dict[str, Array]) -> dict[str, Array]:
    """Directions divided by their common length; unchanged if that is 0."""
    length = float(np.sqrt(sum(float((part**2).sum()) for part in directions.values())))
    return {name: part / length for name, part in directions.items()} if length > 0 else directions
