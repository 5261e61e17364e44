"""How far a network's outputs move with the weights of each output channel, to first order."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import torch

from keylatch.exporters._proof import test_images
from keylatch.locks import LockedModule, LockSecret
from keylatch.locks._randomness import SEED_BYTES, SeededDraws
from keylatch.locks._withheld._influence import squared_derivatives

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


def channel_sensitivities(module: LockedModule, secret: LockSecret, values: Mapping[str, Array]) -> dict[str, Array]:
    """Mean squared derivative of an output, in units of the outputs' spread, by the weights of each channel.

    Args:
        module: The locked module, float32 on the CPU.
        secret: What opens it.
        values: Gate tensor name to secret value, of weights that are withheld whole.

    Returns:
        Gate tensor name to (n,) float64, n the size of the first axis: the mean over made images, outputs and the
        channel's weights, in the unit of the values.
    """
    images = torch.from_numpy(test_images(module.spec))
    draws = SeededDraws(secrets.token_bytes(SEED_BYTES), "sensitivity")
    with module.opened(secret), _watched(_weights(module, values)) as weights:
        count = sum(output.numel() for output in module.flat(images) if output.is_floating_point())
        squares = squared_derivatives(lambda: module.flat(images), weights, draws)
        own = {name: weight.detach().numpy().copy() for name, weight in weights.items()}
    return {
        name: _by_channel(square.numpy()).mean(1) / count / _folded(own[name], values[name]) ** 2
        for name, square in squares.items()
    }


def _weights(module: LockedModule, names: Mapping[str, Array]) -> dict[str, torch.Tensor]:
    parts = dict(zip(module.withheld.names(), module.withheld.parts, strict=True))
    return {
        name: module.body.get_parameter(parts[name].parameter) if name in parts else module.get_buffer(name)
        for name in names
    }


@contextmanager
def _watched(weights: dict[str, torch.Tensor]) -> Iterator[dict[str, torch.Tensor]]:
    """Weights that require gradients for a while."""
    before = {name: weight.requires_grad for name, weight in weights.items()}
    try:
        for weight in weights.values():
            weight.requires_grad_(True)
        yield weights
    finally:
        for name, weight in weights.items():
            weight.requires_grad_(before[name])


def _folded(own: Array, value: Array) -> Array:
    """By how much the exporter scaled each channel, (n,): it folds normalizations into weights."""
    ours, exported = _by_channel(own), _by_channel(value)
    scale: Array = (ours * exported).sum(1) / np.maximum((ours * ours).sum(1), 1e-300)
    return np.where(scale == 0, 1.0, scale)


def _by_channel(array: Array) -> Array:
    flat: Array = array.astype(np.float64).reshape(len(array), -1)
    return flat
