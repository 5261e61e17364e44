"""Linear classifiers on what a network computes inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch.nn import functional

from keylatch.audit._attack import Case
from keylatch.audit.onnx_network import OnnxNetwork

_BATCH = 50
_GRIDS = (1, 2, 4)
_MOST_FEATURES = 8192
_RIDGES = (1e-3, 1e-2, 1e-1, 1.0)

_Place: TypeAlias = tuple[str, int]  # a value of the network and a grid


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


def best_probe(case: Case, network: OnnxNetwork, values: Sequence[str]) -> tuple[Probe, bool]:
    """Fit probes at several places, pooled over several grids, to the case's labeled images.

    Returns:
        The best, and whether the clock left some out.
    """
    best: Probe | None = None
    for place, seen in _features(network, case.images[: len(case.labels)], values).items():
        if best is not None and case.clock.expired:
            return best, True
        best = max((probe for probe in (best, _fit(case, network, place, seen)) if probe), key=lambda each: each.merit)
    if best is None:
        raise ValueError("there is no place to probe")
    return best, False


def _features(network: OnnxNetwork, images: torch.Tensor, values: Sequence[str]) -> dict[_Place, torch.Tensor]:
    """All of them in one pass over the images."""
    parts: dict[_Place, list[torch.Tensor]] = {}
    for batch in torch.split(images, _BATCH):
        with torch.no_grad():
            found = network.values(batch, values)
        for value, data in found.items():
            for grid, pooled in _pooled(data).items():
                parts.setdefault((value, grid), []).append(pooled)
    return {place: torch.cat(rows) for place, rows in parts.items()}


def _pooled(data: torch.Tensor) -> dict[int, torch.Tensor]:
    """By grid, (n, features): maps as means over a grid of regions, tokens as their mean and the first of them."""
    if data.dim() == 4:
        sides = {grid: (min(grid, data.shape[2]), min(grid, data.shape[3])) for grid in _GRIDS}
        maps = {grid: functional.adaptive_avg_pool2d(data.float(), side).flatten(1) for grid, side in sides.items()}
    else:
        maps = {1: torch.cat([data.mean(1), data[:, 0]], 1) if data.dim() == 3 else data.flatten(1)}
    return {grid: rows.float() for grid, rows in maps.items() if grid == 1 or rows.shape[1] <= _MOST_FEATURES}


def _fit(case: Case, network: OnnxNetwork, place: _Place, seen: torch.Tensor) -> Probe:
    value, _ = place
    seen = seen.double()
    mean, spread = seen.mean(0), seen.std(0, correction=0) + 1e-6
    rows = _normalized(seen, mean, spread)
    weight, merit = _ridge(rows, functional.one_hot(case.labels, case.classes).double())

    def predict(images: torch.Tensor) -> torch.Tensor:
        return _normalized(_features(network, images, [value])[place].double(), mean, spread) @ weight

    return Probe(predict, value, seen.shape[1], merit)


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
