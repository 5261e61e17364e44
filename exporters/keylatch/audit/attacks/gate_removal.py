"""Cutting gates out, or forcing them to what they may be when they are open.

Where nothing decides, and so no gate is found, products of two values from the image are cut one at a time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch

from keylatch.audit._attack import Case, Given, Outcome, Resources, Variant
from keylatch.audit._gates import _THRESHOLDS, Gate
from keylatch.audit._target import Target
from keylatch.audit.attacks._choice import labeled_merit, unlabeled_merit
from keylatch.audit.attacks._free_gates import (
    attacked_network,
    fix_controls,
    put_centers,
    remove_gates,
)
from keylatch.audit.attacks._products import has_products, products
from keylatch.audit.attacks._weight_layers import effective_value, upstream
from keylatch.audit.onnx_network import OnnxNetwork

Cut: TypeAlias = Callable[[OnnxNetwork], None]

_COUNT = 100
_MOST_VALUES = 4  # a control of more values says more than open or closed
_MOST_SWITCHES = 3
_PROBES = 16
_CONSTANTS = (1.0, -1.0, 0.0)


@dataclass(frozen=True, slots=True)
class GateRemoval:
    """Cuts all gates out, or holds them at one value, or holds the decision behind them."""

    name: str = "gate-removal"
    needs: str = "unlabeled or labeled images"
    summary: str = (
        "Cuts every gate out, or forces it and the decision behind it to each constant they can take; where none is "
        "found, cuts products out one at a time."
    )
    version: int = 2

    def variants(self, target: Target, resources: Resources) -> Sequence[Variant]:
        """Chosen without labels, and by labels."""
        if not resources.pool or not (target.gates or has_products(target.network())):
            return []
        unlabeled = Variant(Given(unlabeled=min(_COUNT, resources.pool)), "chosen without labels", weight=0.5)
        return [
            unlabeled,
            *(Variant(Given(labeled=count), "chosen by labels", weight=0.5) for count in resources.labeled),
        ]

    def run(self, case: Case) -> Outcome:
        """Try every cut, keep the best."""
        labeled = len(case.labels) > 0
        merit = labeled_merit(case.images, case.labels) if labeled else unlabeled_merit(case.images)
        best, best_merit, note, truncated = attacked_network(case), (-2.0, 0.0), "nothing", False
        for name, cut in _cuts(case).items():
            if case.clock.expired:
                truncated = True
                break
            network = attacked_network(case)
            cut(network)
            if merit(network) > best_merit:
                best, best_merit, note = network, merit(network), name
        return Outcome(best, note=f"best: {note}", truncated=truncated)


def _cuts(case: Case) -> dict[str, Cut]:
    gates = case.target.gates
    if not gates:
        found = products(attacked_network(case), case.images[:1])
        return {
            f"{each.node} cut out, {name} passes": _pass(each.output, name) for each in found for name in each.factors
        }
    cuts: dict[str, Cut] = {"gates cut out": lambda network: remove_gates(network, gates, case.images)}
    network, probes = attacked_network(case), _probes(case)
    for value in _constants(network, gates, probes):
        cuts[f"controls held at {value:g}"] = _hold(case, value)
    return cuts | _patterns(case, network, probes) | _switches(case, network, probes)


def _pass(output: str, factor: str) -> Cut:
    return lambda network: network.substitute(output, factor)


def _hold(case: Case, value: float) -> Cut:
    def cut(network: OnnxNetwork) -> None:
        image = case.images[:1]
        for gate in case.target.gates:
            dtype = effective_value(network, gate.control, image).dtype
            fix_controls(network, [gate], lambda shape, dtype=dtype: torch.full(shape, value).to(dtype), image)  # type: ignore[misc]
        put_centers(network, case)

    return cut


def _constants(network: OnnxNetwork, gates: Sequence[Gate], probes: torch.Tensor) -> list[float]:
    """The usual ones, and what the controls are seen to be if that is not much."""
    seen = set(_CONSTANTS)
    for gate in gates:
        values = torch.unique(effective_value(network, gate.control, probes))
        if len(values) <= _MOST_VALUES:
            seen.update(float(value) for value in values)
    return sorted(seen, reverse=True)


def _patterns(case: Case, network: OnnxNetwork, probes: torch.Tensor) -> dict[str, Cut]:
    """Hold all controls at what they are together for one image, if they are no more than a few things."""
    names = list(dict.fromkeys(gate.control for gate in case.target.gates))
    with torch.no_grad():
        seen = [network.values(probe, names) for probe in torch.split(probes, 1)]
    distinct: list[Mapping[str, torch.Tensor]] = []
    for values in seen:
        if not any(all(torch.equal(values[name], other[name]) for name in names) for other in distinct):
            distinct.append(values)
    if len(distinct) > _MOST_VALUES:
        return {}
    return {f"controls as for image {number}": _substitute(values) for number, values in enumerate(distinct)}


def _switches(case: Case, network: OnnxNetwork, probes: torch.Tensor) -> dict[str, Cut]:
    """Hold each yes-or-no decision that the controls come from at yes and at no."""
    behind = upstream(network, [gate.control for gate in case.target.gates])
    outputs = [node.outputs[0] for node in network.nodes if node.op in _THRESHOLDS and node.outputs[0] in behind]
    values = {name: effective_value(network, name, probes[:1]) for name in outputs}
    switches = [name for name, value in values.items() if value.numel() == 1]
    if not 0 < len(switches) <= _MOST_SWITCHES:
        return {}
    choices = itertools.product((True, False), repeat=len(switches))
    held = [
        {name: torch.full_like(values[name], on) for name, on in zip(switches, choice, strict=True)}
        for choice in choices
    ]
    return {f"decisions held at {[bool(v) for v in each.values()]}": _substitute(each) for each in held}


def _substitute(values: Mapping[str, torch.Tensor]) -> Cut:
    def cut(network: OnnxNetwork) -> None:
        for name, value in values.items():
            network.substitute(name, value.clone())

    return cut


def _probes(case: Case) -> torch.Tensor:
    """Some images, and noise."""
    images = case.images[:_PROBES]
    noise = torch.rand(images.shape, generator=case.generator)
    if images.is_floating_point():
        low, high = images.min(), images.max()
        return torch.cat([images, low + noise * (high - low)])
    return torch.cat([images, (noise * 255).round().to(images.dtype)])
