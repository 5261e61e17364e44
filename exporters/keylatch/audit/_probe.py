"""Linear classifiers on what a network computes inside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from keylatch.audit._attack import Case
from keylatch.audit.onnx_network import OnnxNetwork

_BATCH = 50
_GRIDS = (1, 2, 4)
_MOST_FEATURES = 8192
_RIDGES = (1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """A ridge regression on the features at one place of a network.

    Attributes:
        predict: Images to scores.
        value: Where.
        features: How many.
        merit: Leave-one-out accuracy and negative error.
    """

    predict: Callable[[torch.Tensor], torch.Tensor]
    value: str
    features: int
    merit: tuple[float, float]


def better_probe(best: Probe | None, case: Case, network: OnnxNetwork, value: str) -> Probe | None:
    """Fit probes at a place, pooled over several grids, to the case's labeled images; the best, or `best` as it was."""
    probes = [_fit(case, network, value, grid) for grid in _GRIDS]
    return max((probe for probe in (best, *probes) if probe is not None), key=lambda probe: probe.merit, default=None)


def _fit(case: Case, network: OnnxNetwork, value: str, grid: int) -> Probe | None:
    def features(images: torch.Tensor) -> torch.Tensor:
        return torch.cat([_pooled(network, part, value, grid) for part in torch.split(images, _BATCH)])

    seen = features(case.images)
    if seen.shape[1] > _MOST_FEATURES:
        return None
    mean, spread = seen.mean(0), seen.std(0, correction=0) + 1e-6
    rows = _normalized(seen, mean, spread)
    weight, merit = _ridge(rows, functional.one_hot(case.labels, case.classes).double())
    return Probe(lambda images: _normalized(features(images), mean, spread) @ weight, value, seen.shape[1], merit)


def _pooled(network: OnnxNetwork, images: torch.Tensor, value: str, grid: int) -> torch.Tensor:
    """(n, features): maps as means over a grid of regions, tokens as their mean and the first of them."""
    with torch.no_grad():
        data = network.values(images, [value])[value].double()
    if data.dim() == 4:
        return functional.adaptive_avg_pool2d(data, (min(grid, data.shape[2]), min(grid, data.shape[3]))).flatten(1)
    if data.dim() == 3:
        return torch.cat([data.mean(1), data[:, 0]], 1)
    return data.flatten(1)


def _normalized(features: torch.Tensor, mean: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
    rows = (features - mean) / spread
    return torch.cat([rows / rows.shape[1] ** 0.5, rows.new_ones(len(rows), 1)], 1)


def _ridge(rows: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, tuple[float, float]]:
    """The best of several ridge regressions: (features, classes) weights, leave-one-out accuracy and negative error.

    Leave-one-out predictions in closed form: y - (K + r I)^-1 y / diag((K + r I)^-1).
    """
    kernel, eye = rows @ rows.T, torch.eye(len(rows), dtype=rows.dtype)
    found = []
    for ridge in _RIDGES:
        inverse = torch.linalg.inv(kernel + ridge * kernel.diagonal().mean() * eye)
        dual = inverse @ wanted
        error = dual / inverse.diagonal()[:, None]
        accuracy = ((wanted - error).argmax(1) == wanted.argmax(1)).double().mean()
        found.append((rows.T @ dual, (float(accuracy), -float(error.square().mean()))))
    return max(found, key=lambda each: each[1])
