"""What is left of a leaked tensor without the model's own: a word, and the noise of whatever was done to it."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from keylatch.trace._alignment import Counterpart

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_CLIP = 3.0  # medians: a few weights that moved far must not drown the others


def evidence(counterpart: Counterpart, base: Array, steps: Array) -> Array:
    """How each weight of a leak speaks for a step up or down.

    The difference in steps, clipped, divided by its mean square over the channel, or over the tensor if it has one
    step: the product with a word is then largest against its noise (a matched filter). A word alone has a mean square
    of 1; where less is left, as in channels that pruning left two weights, which a scale and an offset fit exactly, it
    counts as 1. All of it depends on the leak and the model only, on nobody's word.

    Args:
        counterpart: The leaked tensor.
        base: The model's, float64.
        steps: By which words move it, as they broadcast against base; 0 where they do not.

    Returns:
        Of base's shape, float64; 0 where a weight says nothing.
    """
    kept = counterpart.kept & (steps > 0)
    moved = np.where(kept, (counterpart.values - base) / np.where(steps > 0, steps, 1.0), 0.0)
    channels, counted = moved.reshape(steps.size, -1), kept.reshape(steps.size, -1)
    limits = _CLIP * _medians(np.abs(channels), counted)
    clipped = np.clip(channels, -limits, limits)
    squares = (clipped**2).sum(1, keepdims=True) / np.maximum(counted.sum(1, keepdims=True), 1)
    said: Array = clipped / np.maximum(squares, 1.0)
    return said.reshape(base.shape)


def _medians(sizes: Array, counted: Array) -> Array:
    """The median of what counts in each row, (rows, 1); of an even number the lower one, of none 0."""
    ordered = np.sort(np.where(counted, sizes, np.inf), axis=1)
    counts = counted.sum(1)
    middle = np.maximum(counts - 1, 0) // 2
    medians: Array = np.where(counts > 0, ordered[np.arange(len(ordered)), middle], 0.0)
    return medians[:, None]


def unit(directions: dict[str, Array]) -> dict[str, Array]:
    """Directions divided by their common length; unchanged if that is 0."""
    length = float(np.sqrt(sum(float((part**2).sum()) for part in directions.values())))
    return {name: part / length for name, part in directions.items()} if length > 0 else directions
