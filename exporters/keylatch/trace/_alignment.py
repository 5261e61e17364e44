"""Find the tensor of a leak that was once a given tensor of the model: by shape and likeness, not by name.

Exporters and optimizers rename, transpose and quantize weights, and fold scales into them; so a counterpart may have
its axes in another order, and for each output channel a scale and an offset of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

# An unrelated network's first layers correlate by 0.1 or so with each other's, once channels are paired as they stand.
LEAST_LIKENESS = 0.5
_SURE = 0.9  # rounded, pruned or fine-tuned, a tensor is still that like itself, and no other one is: no need to go on
_LEAST_SLICE = 16  # weights of a channel, from which a scale and an offset can be told


@dataclass(frozen=True, slots=True, eq=False)
class Counterpart:
    """A tensor of a leak that was once one of the model's.

    Attributes:
        name: Its name in the leak.
        values: Its values in the order and scale of the model's, float64.
        kept: Where its weights are not zero: a zero was pruned, and says nothing.
        likeness: Correlation with the model's tensor, -1 to 1.
    """

    name: str
    values: Array
    kept: Array
    likeness: float


def find_counterpart(base: Array, leak: Mapping[str, Array]) -> Counterpart | None:
    """The tensor of a leak most like one of the model's; None if none has its shape, in any order of axes.

    Args:
        base: The model's, float64.
        leak: Name to tensor.
    """
    best: tuple[float, str, Array] | None = None
    for likeness, name, ordered in _candidates(base, leak):
        if best is None or likeness > best[0]:
            best = likeness, name, ordered
        if likeness > _SURE:
            break
    if best is None:
        return None
    _, name, ordered = best
    # Integers are quantized weights: their zero is a level like any other, unless it is the most frequent by far.
    kept = (ordered != 0) | (base == 0) if leak[name].dtype.kind == "f" else np.ones(base.shape, dtype=bool)
    values = _in_scale(ordered, base, kept)
    return Counterpart(name, values, kept, _correlation(values[kept], base[kept]))


def _candidates(base: Array, leak: Mapping[str, Array]) -> Iterator[tuple[float, str, Array]]:
    """Tensors of a size in every order that fits, those of the very shape first."""
    fitting = [(name, tensor) for name, tensor in leak.items() if tensor.size == base.size]
    for name, tensor in sorted(fitting, key=lambda pair: pair[1].shape != base.shape):
        for ordered in _orders(tensor.astype(np.float64), base.shape):
            yield _correlation(ordered, base), name, ordered


def _orders(tensor: Array, shape: tuple[int, ...]) -> Iterator[Array]:
    """A tensor with its axes in every order that gives a shape; axes of length 1 come and go."""
    wanted = tuple(size for size in shape if size > 1)
    squeezed = tensor.reshape([size for size in tensor.shape if size > 1])
    for order in itertools.permutations(range(squeezed.ndim)):
        if tuple(squeezed.shape[axis] for axis in order) == wanted:
            yield squeezed.transpose(order).reshape(shape)


def _correlation(one: Array, other: Array) -> float:
    if one.size == 0:
        return 0.0
    a, b = one - one.mean(), other - other.mean()
    return float((a * b).sum() / max(np.sqrt((a * a).sum() * (b * b).sum()), 1e-300))


def _in_scale(leak: Array, base: Array, kept: Array) -> Array:
    """Take scales and offsets back: of each output channel, or of the whole tensor where channels are too small.

    The leak is taken for scale * base + offset + noise and fitted by least squares over what was kept; the other way
    around noise would shrink it (regression dilution).
    """
    channels = max(_channel_axes(base), key=lambda axis: _fit_quality(leak, base, kept, axis))
    return _fitted(leak, base, kept, channels)


def _channel_axes(base: Array) -> list[int | None]:
    small = [axis for axis in range(base.ndim) if base.size // base.shape[axis] >= _LEAST_SLICE]
    return [None, *(axis for axis in (0, base.ndim - 1) if axis in small)]


def _fit_quality(leak: Array, base: Array, kept: Array, axis: int | None) -> float:
    fitted = _fitted(leak, base, kept, axis)
    return -float(np.median(np.abs((fitted - base)[kept]))) if kept.any() else 0.0


def _fitted(leak: Array, base: Array, kept: Array, axis: int | None) -> Array:
    axes = tuple(other for other in range(base.ndim) if other != axis)
    count = np.maximum(kept.sum(axes, keepdims=True), 1)

    def mean(values: Array) -> Array:
        averaged: Array = (values * kept).sum(axes, keepdims=True) / count
        return averaged

    center_leak, center_base = mean(leak), mean(base)
    spread = mean((base - center_base) ** 2)
    scale = mean((base - center_base) * (leak - center_leak)) / np.maximum(spread, 1e-300)
    usable = np.abs(scale) > 1e-12
    values: Array = np.where(usable, (leak - center_leak) / np.where(usable, scale, 1.0) + center_base, center_base)
    return values
