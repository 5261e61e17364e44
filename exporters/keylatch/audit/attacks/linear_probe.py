"""A linear classifier on what the locked network computes inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from keylatch.audit._attack import Case, Given, Outcome, Resources, Variant
from keylatch.audit._target import Target
from keylatch.audit.attacks._free_gates import (
    attacked_network,
    constant,
    fix_controls,
    put_centers,
    steered_gates,
    without_effect,
)
from keylatch.audit.attacks._weight_layers import weight_layers
from keylatch.audit.onnx_network import OnnxNetwork

_DEPTHS = 8
_BATCH = 50
_GRIDS = (1, 2, 4)
_MOST_FEATURES = 8192
_RIDGES = (1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True, slots=True)
class LinearProbe:
    """Reads features at several depths, and fits ridge regressions to them."""

    name: str = "linear-probe"
    summary: str = "Fits a linear classifier to features inside the locked network, at the depth that serves best."
    version: int = 1

    def variants(self, target: Target, resources: Resources) -> Sequence[Variant]:
        """Each number of labeled images."""
        if not weight_layers(target.network(), target.gates):
            return []
        return [Variant(Given(labeled=count), weight=1.0) for count in resources.labeled]

    def run(self, case: Case) -> Outcome:
        """Fit at every depth, keep the best by leave-one-out accuracy."""
        best: _Probe | None = None
        truncated = False
        for held in (False, True) if case.target.gates else (False,):
            network = _prepared(case, held)
            for value in _depths(network, case.target):
                if best is not None and case.clock.expired:
                    truncated = True
                    break
                probes = [_fit(case, network, value, grid) for grid in _GRIDS]
                best = max([probe for probe in (best, *probes) if probe is not None], key=lambda probe: probe.merit)
        assert best is not None, "no layers"  # noqa: S101
        return Outcome(best.predict, {"features": best.features}, f"best: {best.value}", truncated=truncated)


@dataclass(frozen=True, slots=True, eq=False)
class _Probe:
    predict: Callable[[torch.Tensor], torch.Tensor]
    value: str
    features: int
    merit: tuple[float, float]


def _prepared(case: Case, held: bool) -> OnnxNetwork:
    """The network with its gates as they are, or held without effect."""
    network, image = attacked_network(case), case.images[:1]
    if held:
        for gate in steered_gates(network, case.target.gates, image):
            fix_controls(network, [gate], constant(without_effect(gate)), image)
        put_centers(network, case)
    return network


def _depths(network: OnnxNetwork, target: Target) -> list[str]:
    """What the first gate reads, which no lock has harmed, and what the last layers read."""
    layers = [layer.data for layer in weight_layers(network, target.gates)]
    return list(dict.fromkeys([*(gate.source for gate in target.gates[:1]), *layers[-_DEPTHS:]]))


def _fit(case: Case, network: OnnxNetwork, value: str, grid: int) -> _Probe | None:
    def features(images: torch.Tensor) -> torch.Tensor:
        return torch.cat([_pooled(network, part, value, grid) for part in torch.split(images, _BATCH)])

    seen = features(case.images)
    if seen.shape[1] > _MOST_FEATURES:
        return None
    mean, spread = seen.mean(0), seen.std(0, correction=0) + 1e-6
    rows = _normalized(seen, mean, spread)
    weight, merit = _ridge(rows, functional.one_hot(case.labels, case.classes).double())
    return _Probe(lambda images: _normalized(features(images), mean, spread) @ weight, value, seen.shape[1], merit)


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
