"""A linear classifier on what the locked network computes inside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from keylatch.audit._attack import Case, Given, Outcome, Resources, Variant
from keylatch.audit._probe import Probe, best_probe
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


@dataclass(frozen=True, slots=True)
class LinearProbe:
    """Reads features at several depths, and fits ridge regressions to them."""

    name: str = "linear-probe"
    needs: str = "labeled images"
    summary: str = "Fits a linear classifier to features inside the locked network, at the depth that serves best."
    version: int = 2

    def variants(self, target: Target, resources: Resources) -> Sequence[Variant]:
        """Each number of labeled images."""
        if not weight_layers(target.network(), target.gates):
            return []
        return [Variant(Given(labeled=count), weight=1.0) for count in resources.labeled]

    def run(self, case: Case) -> Outcome:
        """Fit at every depth, keep the best by leave-one-out accuracy."""
        found: list[Probe] = []
        truncated = False
        for held in (False, True) if case.target.gates else (False,):
            if found and case.clock.expired:
                truncated = True
                break
            network = _prepared(case, held)
            best, cut = best_probe(case, network, _depths(network, case.target))
            found.append(best)
            truncated = truncated or cut
        best = max(found, key=lambda probe: probe.merit)
        return Outcome(best.predict, {"features": best.features}, f"best: {best.value}", truncated=truncated)


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
